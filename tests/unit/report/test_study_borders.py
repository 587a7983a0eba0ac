"""Borders on a map, by hand: points are joined within the squares between four scenarios."""

from __future__ import annotations

import pytest

from hsgd_emu.report.study.axes import Axis, make_axis, round_values
from hsgd_emu.report.study.borders import Cells, Crossing, borders, crossings_of
from hsgd_emu.report.study.grid import make_grid
from hsgd_emu.report.study.maps import ink, rectangles
from hsgd_emu.study.sweep.crossover import Crossover

X = Cells([0.0, 1.0, 2.0], [-0.5, 0.5, 1.5, 2.5])
Y = Cells([0.0, 1.0], [-0.5, 0.5, 1.5])
AB, AC, BC = ("a", "b"), ("a", "c"), ("b", "c")


def test_border_is_joined_from_row_to_row() -> None:
    rows = [Crossing(True, 0, 0.4, AB), Crossing(True, 1, 0.6, AB)]
    found = borders(rows, [[0, 1, 1], [0, 1, 1]], X, Y)
    assert found == {AB: [((0.4, 0.0), (0.6, 1.0)), ((0.4, -0.5), (0.4, 0.0)), ((0.6, 1.0), (0.6, 1.5))]}, (
        "inside, then square to the lower and the upper edge"
    )


def test_border_turns_from_a_row_to_a_column() -> None:
    crossings = [Crossing(True, 0, 0.4, AB), Crossing(False, 0, 0.3, AB)]
    found = borders(crossings, [[0, 1, 1], [1, 1, 1]], X, Y)
    assert ((0.4, 0.0), (0.0, 0.3)) in found[AB]
    assert ((-0.5, 0.3), (0.0, 0.3)) in found[AB], "out to the left edge"


def test_three_regions_meet_in_a_point() -> None:
    crossings = [Crossing(True, 0, 0.5, AB), Crossing(False, 0, 0.5, AC), Crossing(False, 1, 0.5, BC)]
    found = borders(crossings, [[0, 1, 1], [2, 2, 2]], X, Y)
    # the mean of (0.5, 0), (0, 0.5) and (1, 0.5)
    middle = (0.5, pytest.approx(1 / 3))
    assert found[AB][0] == ((0.5, 0.0), middle)
    assert found[AC][0] == ((0.0, 0.5), middle)
    assert found[BC][0] == ((1.0, 0.5), middle)


def test_rows_of_names_are_bordered_one_by_one() -> None:
    # the best case changes from row to row, and no crossover says where: nothing may be joined across
    rows = [Crossing(True, 0, 0.4, AB), Crossing(True, 1, 0.6, AB)]
    found = borders(rows, [[0, 1, 1], [0, 1, 0]], X, Y)
    assert found == {AB: [((0.4, -0.5), (0.4, 0.5)), ((0.6, 0.5), (0.6, 1.5))]}


def _axis(name: str, values: list[float | str]) -> tuple[Axis, list[int]]:
    spec = {"name": name, "rtt_s": name, "spacing": "linear"}
    return make_axis(spec, [(str(value), value if isinstance(value, float) else None) for value in values])


def test_crossovers_go_to_their_map() -> None:
    import numpy as np

    made = [_axis("x", [1.0, 2.0] * 4), _axis("y", [1.0, 1.0, 5.0, 5.0] * 2), _axis("z", ["u"] * 4 + ["v"] * 4)]
    axes = [axis for axis, _ in made]
    grid = make_grid(axes, np.array([places for _, places in made]).T, 1)
    assert grid is not None
    rows = [
        Crossover("test_accuracy", 0.8, "x", {"y": 5, "z": "v"}, "b", "a", 1.5),
        Crossover("test_accuracy", 0.8, "y", {"x": 1.0, "z": "u"}, "a", "b", 3.0),
        Crossover("test_accuracy", 0.8, "x", {"y": 7, "z": "v"}, "a", "b", 1.5),
    ]
    # z is the panel: v is its place 1, u its place 0; no line of the map is at y = 7
    assert crossings_of(rows, axes, grid) == {
        (1,): [Crossing(True, 1, 1.5, AB)],
        (0,): [Crossing(False, 0, 3.0, AB)],
    }


def test_cells_end_half_way() -> None:
    linear, _ = _axis("x", [1.0, 2.0, 4.0])
    assert linear.edges([0, 1, 2]) == [0.5, 1.5, 3.0, 5.0]
    log, _ = make_axis({"name": "x", "rtt_s": "x", "spacing": "log"}, [("1", 1.0), ("100", 100.0)])
    assert log.edges([0, 1]) == pytest.approx([0.1, 10.0, 1000.0])
    names, _ = _axis("x", ["u", "v"])
    assert names.edges([0, 1]) == [-0.5, 0.5, 1.5]


def test_numbers_are_put_in_order_and_names_are_not() -> None:
    axis, places = _axis("x", [3.0, 1.0, 3.0, 2.0])
    assert (axis.numbers, places) == ((1.0, 2.0, 3.0), [2, 0, 2, 1])
    names, places = _axis("x", ["v", "u", "v"])
    assert (names.texts, places) == (("v", "u"), [0, 1, 0])


def test_ticks_are_round() -> None:
    assert round_values(0.02, 2.0) == [0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0]
    assert round_values(0.001, 10.0) == [0.001, 0.01, 0.1, 1.0, 10.0]


def test_largest_rectangle() -> None:
    best = [[0, 0, 1, 1], [0, 1, 1, 1], [-1, 1, 1, 1]]
    found = rectangles(best, range(5), range(4))
    # case 1: columns 2-3 of all three rows and columns 1-3 of two rows have 6 cells each; the first met stays
    assert found[1] in ((2, 4, 0, 3), (1, 4, 1, 3))
    assert found[0] in ((0, 2, 0, 1), (0, 1, 0, 2))
    assert -1 not in found


def test_names_are_read_on_their_colour() -> None:
    # contrast of white: 5.2 on the blue and 2.3 on the orange; of black: 4.0 and 9.1
    assert (ink("#0072B2"), ink("#E69F00")) == ("#fff", "#111")
