"""The RTFs of a sweep as a table."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich.table import Table

from hwsim.report.layout import plain_table
from hwsim.report.units import DASH, significant

if TYPE_CHECKING:
    import pandas as pd

MOST_ROWS, MOST_BEAMS = 40, 9


def rtf_table(frame: pd.DataFrame) -> Table:
    """RTF over beam width: one row for each combination of everything else that varies, one column for each beam.

    Only the first 40 rows and the first 9 beams are shown; the title says so.
    """
    inputs = [str(name) for name in frame.columns[: list(frame.columns).index("rtf")]]
    varying = [name for name in inputs if name != "beam" and (name == "precision" or frame[name].nunique() > 1)]
    beams = sorted(frame["beam"].unique().tolist())
    shown = beams[:MOST_BEAMS]
    groups = list(frame.groupby(varying, sort=False))
    cut = " (a part: the file has all points)" if len(groups) > MOST_ROWS or len(beams) > MOST_BEAMS else ""
    names = ((name.rpartition(".")[2], "wrap") for name in varying)
    table = plain_table(f"Real-time factor over beam width{cut}", [*names, *((str(beam), "right") for beam in shown)])
    for key, rows in groups[:MOST_ROWS]:
        rtf = dict(zip(rows["beam"].tolist(), rows["rtf"].tolist(), strict=True))
        values = (f"{value:g}" if isinstance(value, float) else str(value) for value in key)
        table.add_row(*values, *(_shown(rtf.get(beam, math.nan)) for beam in shown))
    return table


def _shown(rtf: float) -> str:
    return DASH if math.isnan(rtf) else significant(rtf)
