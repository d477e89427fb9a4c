"""How matrices lie in ONNX values, as laws."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hwsim.extract.onnx import Layout, View

SIZES = st.integers(1, 4)


def of(shape: tuple[int, ...], axis: int) -> Layout:
    found = Layout.of(shape, axis)
    assert found is not None
    return found


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    """Rows, one or two atoms of columns, and axes of one, in any order."""
    sizes = tuple(draw(st.lists(SIZES, min_size=2, max_size=3)))
    axes = [(atom,) for atom in range(len(sizes))] + [()] * draw(st.integers(0, 2))
    return Layout(tuple(draw(st.permutations(axes))), sizes)


@given(layouts())
def test_giving_undoes_taking(layout: Layout) -> None:
    value = np.arange(np.prod(layout.shape)).reshape(layout.shape)
    view = View("v", layout, (layout.rows, layout.columns), 0, layout.columns)
    matrix = view.take(value)
    assert matrix.shape == (layout.rows, layout.columns)
    np.testing.assert_array_equal(view.give(matrix), value)


@given(layouts(), st.data())
def test_moving_axes_does_not_change_the_matrix(layout: Layout, data: st.DataObject) -> None:
    value = np.arange(np.prod(layout.shape)).reshape(layout.shape)
    order = data.draw(st.permutations(range(len(layout.axes))))
    shape = (layout.rows, layout.columns)
    matrix = View("v", layout, shape, 0, layout.columns).take(value)
    moved = View("v", layout.permuted(order), shape, 0, layout.columns)
    np.testing.assert_array_equal(moved.take(value.transpose(order)), matrix)
    squeezed = tuple(size for size in layout.shape if size > 1)
    reshaped = layout.reshaped(squeezed)
    assert reshaped is not None
    assert reshaped.shape == squeezed
    np.testing.assert_array_equal(View("v", reshaped, shape, 0, layout.columns).take(value.reshape(squeezed)), matrix)


def test_directions_and_cells_join_only_in_their_order() -> None:
    y = Layout(((0,), (1,), (), (2,)), (7, 2, 5))
    assert y.column_axis is None
    joined = y.permuted((0, 2, 1, 3)).reshaped((7, 1, 10))
    assert joined is not None
    assert (joined.column_axis, joined.row_axis, joined.columns) == (2, 0, 10)
    assert y.permuted((3, 1, 0, 2)).reshaped((10, 7)) == Layout(((2, 1), (0,)), (7, 2, 5))
    assert Layout(((2, 1), (0,)), (7, 2, 5)).column_axis is None
    assert y.reshaped((14, 5)) is not None
    assert y.reshaped((7, 5, 2)) is None


def test_a_batch_has_no_layout() -> None:
    assert Layout.of((2, 7, 5), 2) is None
    assert of((1, 7, 5), 2) == Layout(((), (0,), (1,)), (7, 5))
    assert of((1, 5, 7), 1).column_axis == 1
    assert of((1, 1, 5), 2).rows == 1


def test_vectors_over_the_columns() -> None:
    frames_last = of((1, 3, 7), 1)
    np.testing.assert_array_equal(frames_last.column_vector(np.array([[1], [2], [3]])), [1, 2, 3])
    np.testing.assert_array_equal(frames_last.column_vector(np.array(4)), [4, 4, 4])
    assert frames_last.column_vector(np.arange(7)) is None
    assert frames_last.column_vector(np.zeros((1, 1, 3, 1))) is None
    assert frames_last.column_vector(np.arange(3)) is None
