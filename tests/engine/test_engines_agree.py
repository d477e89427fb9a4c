"""Two engines, one meaning: equal to the cycle on any task graph."""

import numpy as np
from hypothesis import given, settings

from hwsim.engine.event import run_event
from hwsim.engine.fast import run_fast
from tests.engine.strategies import task_graphs


@settings(max_examples=400, deadline=None)
@given(task_graphs())
def test_fast_equals_event(graph):
    graph.validate()
    fast, event = run_fast(graph), run_event(graph)
    for column in ("ready", "start", "release", "end"):
        assert np.array_equal(getattr(fast, column), getattr(event, column)), column
