"""Random task graphs: any mix of units, channels, rings and dependencies that the rules allow."""

import numpy as np
from hypothesis import strategies as st

from hwsim.engine.tasks import TaskGraph


def csr(lists):
    pointer = np.concatenate([[0], np.cumsum([len(x) for x in lists])]).astype(np.int64)
    return pointer, np.array([x for part in lists for x in part], dtype=np.int64)


@st.composite
def task_graphs(draw, max_tasks=40, orderly=True):
    """Every task that takes ring bytes is freed by a later one, before the ring would stay full for ever.

    Unless `orderly`: then bytes may come free after a task that needs them, or never.
    """
    units = draw(st.integers(1, 4))
    channels = draw(st.integers(0, 3))
    rings = draw(st.lists(st.sampled_from([0, 0, 8, 16]), min_size=units, max_size=units))
    rows, unit_lists, dep_lists = [], [], []
    holding: list[tuple[int, set[int]]] = []

    def add(duration, latency, channel, acquire, frees, on, deps):
        rows.append((duration, latency, channel, acquire, *([*frees, -1, -1][:2])))
        unit_lists.append(sorted(on))
        dep_lists.append(sorted(deps | set(frees)))

    for _ in range(draw(st.integers(1, max_tasks))):
        on = draw(st.sets(st.integers(0, units - 1), max_size=units))
        line = draw(st.integers(-1, channels - 1))
        ringed = [rings[u] for u in on if rings[u]]
        acquire = draw(st.integers(1, min(ringed))) if ringed and draw(st.booleans()) else 0
        if acquire:
            for holder in [h for h in holding if h[1] & on and orderly]:
                holding.remove(holder)
                add(draw(st.integers(0, 5)), 0, -1, 0, [holder[0]], set(), set())
            holding.append((len(rows), on))
            freed = []
        else:
            count = draw(st.integers(0, min(2, len(holding))))
            freed = [holding.pop(draw(st.integers(0, len(holding) - 1)))[0] for _ in range(count)]
        deps = draw(st.sets(st.integers(0, len(rows) - 1), max_size=3)) if rows else set()
        add(
            draw(st.integers(int(line >= 0), 7)),
            draw(st.sampled_from([0, 0, 1, 4])),
            line,
            acquire,
            freed,
            on,
            deps,
        )
    table = np.array(rows, dtype=np.int64)
    return TaskGraph(
        tuple(f"unit{i}" for i in range(units)), np.array(rings, dtype=np.int64),
        tuple(f"channel{i}" for i in range(channels)),
        *(table[:, i].copy() for i in range(4)), table[:, 4:].copy(), *csr(unit_lists), *csr(dep_lists),
    )  # fmt: skip
