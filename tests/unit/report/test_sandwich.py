"""The sandwich: who lies between whom, and what is said where the order is broken."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from hsgd_emu.report.content import MOST_POINTS, Content
from hsgd_emu.report.figure import Figure
from hsgd_emu.report.sandwich import periods_of, sandwich, sandwiches
from hsgd_emu.results.rows import CurveRow
from tests.unit.report.test_curves import column, content_of, make_run, refs, row

LOCAL, HSGD, GLOBAL = "P=5", "G=50 I=5", "P=50"
CASES = {LOCAL: "period: 5", GLOBAL: "period: 50", HSGD: "periods: [50, 5]"}
Values = Mapping[str, Sequence[float | None]]
# P=5 above all, P=50 below all
BOUNDS = {LOCAL: [0.4, 0.6, 0.8, 0.9], GLOBAL: [0.2, 0.3, 0.5, 0.7]}


def every_50(values: Values) -> Callable[[str, int], list[CurveRow]]:
    return lambda case, seed: [row(50 * i, 10.0 * i, value) for i, value in enumerate(values[case], start=1)]


def contents(
    folder: Path, values: Values, cases: Mapping[str, str] = CASES, seeds: Sequence[int] = (1,)
) -> Iterator[Content]:
    yield from content_of(make_run(folder, every_50(values), cases=cases, seeds=seeds))


def figure_of(content: Content) -> Figure:
    figure = sandwich(content)
    assert figure is not None
    for picture in figure.pictures:
        figure.plotly(picture.key)
        for ref in refs(picture.traces):
            assert 0 <= ref.start < ref.end <= len(column(figure, ref.column))
    return figure


def said(folder: Path, hsgd: Sequence[float | None], **bounds: Sequence[float]) -> str:
    changed = {"P=5": bounds.get("local", BOUNDS[LOCAL]), "P=50": bounds.get("global_", BOUNDS[GLOBAL])}
    for content in contents(folder, {**changed, HSGD: hsgd}):
        return figure_of(content).pictures[0].text
    raise AssertionError


# --- who lies between whom --------------------------------------------------------------------------


def test_three_curves_and_the_band_between_the_bounds(tmp_path: Path) -> None:
    hsgd = [0.3, 0.4, 0.7, 0.8]
    for content in contents(tmp_path / "run", {**BOUNDS, HSGD: hsgd}):
        figure = figure_of(content)
        assert (figure.id, figure.switches, [picture.key for picture in figure.pictures]) == ("sandwich", (), [()])
        lower, upper, *lines = figure.plotly(()).data
        assert (lower.fill, upper.fill) == (None, "tonexty")
        assert (list(lower.y), list(upper.y)) == (BOUNDS[GLOBAL], BOUNDS[LOCAL])
        assert {trace.hoverinfo for trace in (lower, upper)} == {"skip"}
        assert {line.name: list(line.y) for line in lines} == {**BOUNDS, HSGD: hsgd}
        assert all(list(line.x) == [50, 100, 150, 200] for line in lines)
        assert [line.line.dash for line in lines] == ["8px,3px", "8px,3px", "solid"]
        assert [line.meta for line in lines] == [1, 0, 2]


def test_cases_that_train_otherwise_are_no_bounds(tmp_path: Path) -> None:
    own = "train: {momentum: 0.9}"
    values = {**BOUNDS, HSGD: [0.3, 0.4, 0.7, 0.8]}
    for name, expected in ((LOCAL, 0), (HSGD, 0), ("", 1)):
        cases = {case: f"{text}, {own}" if case == name else text for case, text in CASES.items()}
        for content in contents(tmp_path / (name or "none"), values, cases):
            assert len(list(sandwiches(content))) == expected
    alike = {case: f"{text}, {own}" for case, text in CASES.items()}
    for content in contents(tmp_path / "alike", values, alike):
        assert len(list(sandwiches(content))) == 1


def test_only_iterations_that_all_have_evaluated_count(tmp_path: Path) -> None:
    def curve(case: str, seed: int) -> list[CurveRow]:
        step = {LOCAL: 10, GLOBAL: 50, HSGD: 25}[case]
        return [row(at, float(at), at / 1000 + list(CASES).index(case)) for at in range(step, 101, step)]

    for content in content_of(make_run(tmp_path / "run", curve, cases=CASES, seeds=[1])):
        assert column(figure_of(content), "iteration") == [50, 100]


@pytest.mark.parametrize(
    "cases",
    [
        {LOCAL: "period: 5", HSGD: "periods: [50, 5]"},
        {LOCAL: "period: 5", GLOBAL: "period: 100", HSGD: "periods: [50, 5]"},
        {LOCAL: "period: 5", GLOBAL: "period: 50"},
        # another part of the workers takes part
        {LOCAL: "period: 5", GLOBAL: "period: 50", HSGD: "periods: [50, 5], participation: 0.5"},
        # two groups with periods of their own
        {LOCAL: "period: 5", GLOBAL: "period: 50", HSGD: "periods: {root: 50, site-0: 5, site-1: 10}"},
        # as often at the sites as at the root, or never: nothing lies between
        {LOCAL: "period: 5", GLOBAL: "period: 50", HSGD: "periods: [50, 50]"},
        {LOCAL: "period: 5", GLOBAL: "period: 50", HSGD: "periods: [50, none]"},
    ],
)
def test_no_figure_without_both_bounds(tmp_path: Path, cases: Mapping[str, str]) -> None:
    for content in contents(tmp_path / "run", {**BOUNDS, HSGD: [0.3, 0.4, 0.7, 0.8]}, cases):
        assert sandwich(content) is None


def test_bounds_are_looked_for_in_the_same_run(tmp_path: Path) -> None:
    values = every_50({**BOUNDS, HSGD: [0.3, 0.4, 0.7, 0.8]})
    one = make_run(tmp_path / "one", values, cases={HSGD: CASES[HSGD], LOCAL: CASES[LOCAL]})
    other = make_run(tmp_path / "other", values, cases={GLOBAL: CASES[GLOBAL]})
    for content in content_of(one, other):
        assert sandwich(content) is None


def test_participation_may_be_that_of_the_whole_run_or_of_the_case(tmp_path: Path) -> None:
    cases = {
        "half P=5": "period: 5, participation: 0.5",
        **CASES,
        "half P=50": "period: 50, participation: 0.5",
        "half G=50 I=5": "periods: [50, 5], participation: 0.5",
    }
    values = {name: [0.1] for name in cases}
    for content in contents(tmp_path / "run", values, cases):
        found = [(one.hsgd.name, one.local.name, one.global_.name) for one in sandwiches(content)]
        assert found == [(HSGD, LOCAL, GLOBAL), ("half G=50 I=5", "half P=5", "half P=50")]


@pytest.mark.parametrize(
    ("spec", "periods"),
    [
        ("period: 20", (20,)),
        ("periods: [50, 5]", (50, 5)),
        ("periods: [50, none]", (50,)),
        ("periods: {root: 50, site: 5}", (50, 5)),
        ("periods: {root: 50, site-0: 5, site-1: 5}", (50, 5)),
        ("periods: {root: 50, site: 5, site-1: 10}", ()),
        ("periods: {root: 50, site-0: 5, site-1: none}", ()),
    ],
)
def test_periods_are_read_level_by_level(tmp_path: Path, spec: str, periods: tuple[int, ...]) -> None:
    for content in contents(tmp_path / "run", {"x": []}, {"x": spec}):
        assert content.runs[0].not_read == ""
        assert periods_of(content.cases[0]) == periods


def test_more_than_two_levels_count_from_the_root_to_the_lowest(tmp_path: Path) -> None:
    # (24): P_M and P_1 bound it. Two levels of servers cannot have three periods: the list alone is read then.
    cases = {**CASES, HSGD: "periods: [50, 10, 5]"}
    for content in contents(tmp_path / "run", {**BOUNDS, HSGD: [0.3, 0.4, 0.7, 0.8]}, cases):
        (one,) = sandwiches(content)
        assert (one.hsgd.name, one.local.name, one.global_.name) == (HSGD, LOCAL, GLOBAL)


def test_several_cases_of_hsgd_are_chosen_by_a_switch(tmp_path: Path) -> None:
    cases = {**CASES, "P=10": "period: 10", "G=50 I=10": "periods: [50, 10]"}
    values = {**BOUNDS, HSGD: [0.3, 0.4, 0.7, 0.8], "P=10": [0.4, 0.4, 0.4], "G=50 I=10": [0.3, 0.4, 0.4, 0.4]}
    for content in contents(tmp_path / "run", values, cases):
        figure = figure_of(content)
        assert [switch.options for switch in figure.switches] == [(("2", HSGD), ("4", "G=50 I=10"))]
        assert [picture.key for picture in figure.pictures] == [("2",), ("4",)]
        assert column(figure, "case") == [HSGD] * 4 + ["G=50 I=10"] * 3
        lines = {line.name: list(line.y) for line in figure.plotly(("4",)).data if line.name}
        assert lines == {"P=50": [0.2, 0.3, 0.5], "P=10": [0.4, 0.4, 0.4], "G=50 I=10": [0.3, 0.4, 0.4]}
        # 50%: at 150 the local SGD with P = G is the better one
        assert figure.pictures[1].text == (
            "At 2 of 3 common evaluations (66.67%) G=50 I=10 lies between P=50 (below) and P=10 (above), equal to one "
            "of the two at 1 of them; at 1 these two are in the opposite order, P=50 above P=10, by at most 10.0 "
            "points (test accuracy, one seed)."
        )


# --- what it says -----------------------------------------------------------------------------------


def test_order_holds(tmp_path: Path) -> None:
    assert said(tmp_path / "run", [0.3, 0.4, 0.7, 0.8]) == (
        "At all 4 common evaluations G=50 I=5 lies between P=50 (below) and P=5 (above) (test accuracy, one seed)."
    )


def test_where_it_does_not_hold_and_by_how_much(tmp_path: Path) -> None:
    # above by 0.006 at 50 and by 0.02 at 100, below by 0.1 at 150
    assert said(tmp_path / "run", [0.406, 0.62, 0.4, 0.8]) == (
        "At 1 of 4 common evaluations (25%) G=50 I=5 lies between P=50 (below) and P=5 (above); at 2 it is above P=5, "
        "by at most 2.0 points; at 1 it is below P=50, by at most 10.0 points (test accuracy, one seed)."
    )


def test_ties_do_not_break_the_order_and_are_told(tmp_path: Path) -> None:
    assert said(tmp_path / "one", [0.4, 0.3, 0.6, 0.8]) == (
        "At all 4 common evaluations G=50 I=5 lies between P=50 (below) and P=5 (above), equal to one of the two at 2 "
        "of them (test accuracy, one seed)."
    )
    same = [0.1, 0.1, 0.1, 0.1]
    assert ", equal to one of the two at each (" in said(tmp_path / "two", same, local=same, global_=same)


def test_opposite_order_of_the_bounds_is_no_sandwich(tmp_path: Path) -> None:
    # it lies between the two, but they are the wrong way round
    text = said(tmp_path / "run", [0.3, 0.4, 0.6, 0.8], local=BOUNDS[GLOBAL], global_=BOUNDS[LOCAL])
    assert text == (
        "At none of 4 common evaluations G=50 I=5 lies between P=50 (below) and P=5 (above); at 4 these two are in the "
        "opposite order, P=50 above P=5, by at most 30.0 points (test accuracy, one seed)."
    )


def test_one_common_evaluation(tmp_path: Path) -> None:
    assert said(tmp_path / "one", [0.3]).startswith("At the one common evaluation G=50 I=5 lies between")
    assert said(tmp_path / "two", [0.4004]) == (
        "At the one common evaluation G=50 I=5 does not lie between P=50 (below) and P=5 (above); at 1 it is above "
        "P=5, by less than 0.1 points (test accuracy, one seed)."
    )


def test_without_accuracy_the_test_loss_is_compared_and_less_is_better(tmp_path: Path) -> None:
    def curve(case: str, seed: int) -> list[CurveRow]:
        losses = {LOCAL: (1.0, 0.5), HSGD: (1.5, 0.25), GLOBAL: (2.0, 1.0)}[case]
        return [row(50 * i, 10.0 * i, None, loss) for i, loss in enumerate(losses, start=1)]

    for content in content_of(make_run(tmp_path / "run", curve, cases=CASES, seeds=[1])):
        figure = figure_of(content)
        assert figure.pictures[0].text == (
            "At 1 of 2 common evaluations (50%) G=50 I=5 lies between P=50 (above) and P=5 (below); at 1 it is below "
            "P=5, by at most 0.25 (test loss, one seed)."
        )
        assert column(figure, "order_holds") == ["yes", "better than P=I"]
        assert column(figure, "test_loss_local_sgd_p_i") == [1.0, 0.5]


def test_medians_over_seeds_are_compared(tmp_path: Path) -> None:
    def curve(case: str, seed: int) -> list[CurveRow]:
        # H-SGD: 0.3, 0.35 and 0.9; one lucky seed above P=5 does not make the median lie above
        value = {LOCAL: 0.4, GLOBAL: 0.2, HSGD: (0.3, 0.35, 0.9)[seed - 1]}[case]
        return [row(50, 10.0, value)]

    for content in content_of(make_run(tmp_path / "run", curve, cases=CASES)):
        figure = figure_of(content)
        assert column(figure, "test_accuracy_hsgd") == [0.35]
        assert figure.pictures[0].text.endswith("(test accuracy, median of 3 seeds).")


def test_all_evaluations_are_counted_and_few_drawn(tmp_path: Path) -> None:
    # 1,000 evaluations, the order broken at every tenth
    hsgd = [0.9 if i % 10 == 0 else 0.5 for i in range(1000)]
    values = {LOCAL: [0.6] * 1000, GLOBAL: [0.4] * 1000, HSGD: hsgd}
    for content in contents(tmp_path / "run", values):
        figure = figure_of(content)
        assert figure.pictures[0].text.startswith("At 900 of 1,000 common evaluations (90%)")
        assert len(column(figure, "iteration")) == MOST_POINTS


def test_nothing_trained_has_no_sandwich(tmp_path: Path) -> None:
    for content in contents(tmp_path / "run", dict.fromkeys(CASES, (None, None))):
        assert sandwich(content) is None


# --- who is no member -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "own",
    ["train: {momentum: 0.5}", "servers: {root: {optimizer: momentum, momentum: 0.5}}", "averaging: {by: uniform}"],
)
def test_only_cases_that_differ_in_the_schedule_alone_are_compared(tmp_path: Path, own: str) -> None:
    other = "H-SGD with more"
    values = {**BOUNDS, HSGD: [0.3, 0.4, 0.7, 0.8], other: [0.3, 0.4, 0.7, 0.8]}
    for content in contents(tmp_path / "run", values, {**CASES, other: f"periods: [50, 5], {own}"}):
        assert [one.hsgd.name for one in sandwiches(content)] == [HSGD]
        assert (
            f"Without {other} (they differ from the local SGDs in more than the schedule)." in figure_of(content).note
        )
        assert content.kinds == (
            "cases that average at several levels",
            "cases that average at the global server alone",
        )
