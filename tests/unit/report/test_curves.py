"""The curves: medians, bands, crossings and sentences against hand computations."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from hsgd_emu.metrics import Metrics
from hsgd_emu.report.content import MOST_POINTS, Content, gather
from hsgd_emu.report.curves import curves, target_lines, y_axis
from hsgd_emu.report.figure import Figure, Ref
from hsgd_emu.report.sentences import listed, unfinished
from hsgd_emu.results.rows import CurveRow, TrialKey
from hsgd_emu.results.store import RunStore
from hsgd_emu.results.tables import insert

LOCAL, HSGD, SLOW = "P=50", "G=50 I=5", "P=100"
PERIODS = {LOCAL: "period: 50", HSGD: "periods: [50, 5]", SLOW: "period: 100"}
TARGETS = (("test_accuracy", 0.5), ("test_accuracy", 0.8))
Curve = Callable[[str, int], Sequence[CurveRow]]
# Four workers at two sites; a message is 1,000 bytes. P=50: every worker sends and receives over two links: 16 messages
# in 50 iterations. G=50 I=5: ten times over the four near links, once over the two far ones: 80 + 4 messages.
RUN = """
name: {name}
topology: {{levels: [{{name: site, count: 2, uplink: far}}, {{name: worker, count: 2, uplink: near}}]}}
profiles: {{near: {{rtt_s: 0.1}}, far: {{rtt_s: 1}}}}
compute: {{step_s: 0.01}}
model: mlp
train: {{iterations: 100}}
message_bytes: 1000
cases:
"""


def row(iteration: int, time_s: float, accuracy: float | None, loss: float | None = None) -> CurveRow:
    """One second is computation, the rest communication."""
    loss = loss if loss is not None or accuracy is None else 1 - accuracy
    return CurveRow(
        iteration // 50,
        iteration,
        time_s,
        time_s,
        1.0,
        time_s - 1,
        0.0,
        0,
        0,
        Metrics(train_loss=loss, test_loss=loss, test_accuracy=accuracy),
    )


def usual(case: str, seed: int) -> list[CurveRow]:
    """Seed 2 is the median of everything; the others are a second and two points away."""
    later_s, better = seed - 2.0, 0.02 * (seed - 2)
    if case == SLOW:
        return [row(100, 10 + later_s, 0.3 + better)]
    step_s, first, last = (40.0, 0.55, 0.85) if case == LOCAL else (10.0, 0.58, 0.88)
    return [row(50, step_s + later_s, first + better), row(100, 2 * step_s + later_s, last + better)]


def untrained(case: str, seed: int) -> list[CurveRow]:
    return [one._replace(metrics=Metrics()) for one in usual(case, seed)]


METRICS = ("train_loss", "test_loss", "test_accuracy")


def make_run(
    folder: Path,
    curve: Curve = usual,
    *,
    cases: Mapping[str, str] = PERIODS,
    seeds: Sequence[int] = (1, 2, 3),
    targets: Sequence[tuple[str, float]] = TARGETS,
    unfinished: Sequence[TrialKey] = (),
    name: str = "tiny",
    readable: bool = True,
) -> Path:
    text = RUN.format(name=json.dumps(name)) if readable else "name: old\nwhat: is this\ncases:\n"
    text += "".join(f"  - {{name: {json.dumps(case)}, {periods}}}\n" for case, periods in cases.items())
    keys = [TrialKey(case, seed) for case in cases for seed in seeds]
    with RunStore.create(folder, text, {}, keys, targets) as store:
        for key in keys:
            for one in curve(key.case, key.seed):
                store.commit_round(key, one.iteration, one, [], [], [])
            if key not in unfinished:
                store.finish_trial(key, "weights", "timeline", "simpy", 1.0)
    return folder


def content_of(*folders: Path) -> Iterator[Content]:
    with gather(folders) as content:
        yield content


@pytest.fixture
def content(tmp_path: Path) -> Iterator[Content]:
    yield from content_of(make_run(tmp_path / "run"))


def figure_of(content: Content) -> Figure:
    figure = curves(content)
    assert figure is not None
    return figure


def drawn(figure: Figure, *key: str) -> list[dict[str, Any]]:
    """The traces of one picture as plotly takes them: all attributes are checked."""
    return [trace.to_plotly_json() for trace in figure.plotly(key).data]


def lines(figure: Figure, *key: str) -> dict[str, dict[str, Any]]:
    return {trace["name"]: trace for trace in drawn(figure, *key) if trace.get("line", {}).get("width") == 2.5}


def rings(figure: Figure, *key: str) -> dict[str, dict[str, Any]]:
    return {trace["name"]: trace for trace in drawn(figure, *key) if trace.get("text") is not None}


def text(figure: Figure, *key: str) -> str:
    return next(picture.text for picture in figure.pictures if picture.key == key)


def column(figure: Figure, name: str) -> list[Any]:
    return list(next(one.values for one in figure.columns if one.name == name))


def refs(value: Any) -> Iterator[Ref]:
    if isinstance(value, Ref):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from refs(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from refs(inner)


# --- what is drawn ----------------------------------------------------------------------------------


def test_one_picture_per_metric_and_axis_accuracy_in_time_first(content: Content) -> None:
    figure = figure_of(content)
    assert [[key for key, _ in switch.options] for switch in figure.switches] == [
        ["test_accuracy", "test_loss", "train_loss"],
        ["time_s", "communication_s", "iteration", "round", "uploaded_bytes", "bytes"],
    ]
    assert figure.pictures[0].key == ("test_accuracy", "time_s")
    assert len(figure.pictures) == len({picture.key for picture in figure.pictures}) == 18
    for picture in figure.pictures:
        figure.plotly(picture.key)
    json.loads(figure.as_json())


def test_every_reference_stays_within_the_rows_of_its_case(content: Content) -> None:
    figure = figure_of(content)
    names = {one.name: one.values for one in figure.columns}
    assert len({len(values) for values in names.values()}) == 1
    for picture in figure.pictures:
        for trace in picture.traces:
            for ref in refs(trace):
                assert {*names["case"][ref.start : ref.end]} == {content.cases[trace["meta"]].name}
                assert 0 <= ref.start < ref.end <= len(names[ref.column])


def test_lines_are_medians_and_bands_reach_from_least_to_most(content: Content) -> None:
    figure = figure_of(content)
    local = lines(figure, "test_accuracy", "time_s")[LOCAL]
    assert local["x"] == [40.0, 80.0]
    assert local["y"] == pytest.approx([0.55, 0.85])
    traces = drawn(figure, "test_accuracy", "time_s")
    least, most = traces[:2]
    assert least["y"] == pytest.approx([0.53, 0.83])
    assert most["y"] == pytest.approx([0.57, 0.87])
    assert most["fill"] == "tonexty"
    assert "fill" not in least
    assert {trace["hoverinfo"] for trace in (least, most)} == {"skip"}
    # bands first, then the lines, then the rings: nothing is hidden by an area
    kinds = ["band" if trace.get("hoverinfo") else "ring" if "text" in trace else "line" for trace in traces]
    assert kinds == ["band"] * 6 + ["line"] * 3 + ["ring"] * 2


@pytest.mark.parametrize(
    ("axis", "expected"),
    [
        ("time_s", [10.0, 20.0]),
        ("communication_s", [9.0, 19.0]),
        ("iteration", [50, 100]),
        # 84 messages of 1,000 bytes in 50 iterations
        ("bytes", [84_000, 168_000]),
    ],
)
def test_axes(content: Content, axis: str, expected: list[float]) -> None:
    assert lines(figure_of(content), "test_loss", axis)[HSGD]["x"] == expected


def test_data_are_the_rows_of_the_table(content: Content) -> None:
    figure = figure_of(content)
    assert column(figure, "case") == [LOCAL, LOCAL, HSGD, HSGD, SLOW]
    assert column(figure, "iteration") == [50, 100, 50, 100, 100]
    assert column(figure, "num_seeds") == [3] * 5
    assert column(figure, "time_least_s") == [39.0, 79.0, 9.0, 19.0, 9.0]
    assert column(figure, "time_most_s") == [41.0, 81.0, 11.0, 21.0, 11.0]
    assert column(figure, "communication_share")[:2] == [39 / 40, 79 / 80]
    assert column(figure, "bytes") == [16_000, 32_000, 84_000, 168_000, 16_000]
    assert column(figure, "train_loss_most") == pytest.approx([0.47, 0.17, 0.44, 0.14, 0.72])


def test_hover_reads_the_columns_it_speaks_of(content: Content) -> None:
    line = next(t for t in figure_of(content).pictures[0].traces if "customdata" in t)
    names = [ref.column for ref in line["customdata"].refs]
    assert names[:3] == ["test_accuracy_least", "test_accuracy_most", "num_seeds"]
    assert names[3:] == ["time_s", "communication_share", "iteration", "bytes"]
    assert "(%{customdata[0]:.1%} to %{customdata[1]:.1%}; median of %{customdata[2]} seeds)" in line["hovertemplate"]
    assert "%{customdata[6]:.3~s}B sent" in line["hovertemplate"]
    assert line["hovertemplate"].endswith("<extra></extra>")


def test_local_sgd_is_dashed_and_colours_are_the_cases(content: Content) -> None:
    found = lines(figure_of(content), "test_accuracy", "iteration")
    assert [found[name]["line"]["dash"] for name in (LOCAL, HSGD)] == ["8px,3px", "solid"]
    assert [found[case.name]["line"]["color"] for case in content.cases] == [case.colour for case in content.cases]
    assert [found[case.name]["meta"] for case in content.cases] == [0, 1, 2]
    # one evaluation is no line
    assert found[SLOW]["mode"] == "markers"


# --- targets ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("axis", "expected"),
    [
        # seed 1 is at 53%, 83% and seed 3 at 57%, 87%: all reach 50% at the first evaluation, 80% at the second
        ("time_s", [40.0, 80.0]),
        ("communication_s", [39.0, 79.0]),
        ("iteration", [50, 100]),
        ("bytes", [16_000, 32_000]),
    ],
)
def test_rings_stand_where_targets_are_reached(content: Content, axis: str, expected: list[float]) -> None:
    found = rings(figure_of(content), "test_accuracy", axis)
    assert list(found) == [LOCAL, HSGD], "P=100 reaches none"
    assert list(found[LOCAL]["x"]) == expected
    assert list(found[LOCAL]["y"]) == [0.5, 0.8]
    assert found[LOCAL]["text"][1] == (
        "reaches 80% test accuracy: 80.00 s, 100 iterations<br>79.00 s of communication, 32.0 kB sent<br>"
        "(median of 3 seeds, 79.00-81.00 s)"
    )


def test_crossing_is_the_median_of_the_seeds_not_of_the_curve(tmp_path: Path) -> None:
    """Seed 1 is there at 50 iterations, seeds 2 and 3 at 100 and never: the median of (50, 100, never) is 100."""

    def curve(case: str, seed: int) -> list[CurveRow]:
        values = {1: (0.9, 0.9), 2: (0.7, 0.85), 3: (0.7, 0.75)}[seed]
        return [row(50 * i, 10.0 * i * seed, value) for i, value in enumerate(values, start=1)]

    for content in content_of(make_run(tmp_path / "run", curve, cases={LOCAL: PERIODS[LOCAL]})):
        figure = figure_of(content)
        at = {axis: rings(figure, "test_accuracy", axis)[LOCAL] for axis in ("time_s", "communication_s", "bytes")}
        # 80%: seed 1 after 10 s, seed 2 after 40 s, seed 3 never
        assert [at["time_s"]["x"][1], at["communication_s"]["x"][1], at["bytes"]["x"][1]] == [40.0, 39.0, 32_000]
        assert at["time_s"]["text"][1].endswith("(median of 3 seeds, reached by 2, 10.00-40.00 s)")


def test_rings_count_finished_seeds_only_as_the_table_does(tmp_path: Path) -> None:
    for content in content_of(make_run(tmp_path / "run", unfinished=[TrialKey(LOCAL, 1)])):
        for axis, expected in (("time_s", 80.5), ("communication_s", 79.5)):
            # seeds 2 and 3: 80 s and 81 s, one of them computation
            assert rings(figure_of(content), "test_accuracy", axis)[LOCAL]["x"][1] == expected


def test_target_lines_stand_on_the_figures_of_their_metric_only(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", targets=(*TARGETS, ("test_loss", 0.01)))
    for content in content_of(folder):
        figure = figure_of(content)
        layout = figure.plotly(("test_loss", "bytes")).layout
        assert [shape.y0 for shape in layout.shapes] == [0.01]
        assert [note.text for note in layout.annotations] == ["target 0.01"]
        # nobody gets there, and it is on the picture all the same
        assert layout.yaxis.range[0] < 0.01
        accuracy = figure.plotly(("test_accuracy", "time_s")).layout
        assert [note.text for note in accuracy.annotations] == ["target 50%", "target 80%"]
        assert not figure.plotly(("train_loss", "time_s")).layout.shapes


def test_axes_start_at_zero_and_leave_the_scale_to_the_reader(content: Content) -> None:
    figure = figure_of(content)
    assert figure.log_x
    for picture in figure.pictures:
        assert "range" not in picture.layout["xaxis"]
        assert picture.layout["xaxis"]["rangemode"] == "tozero"
    assert figure.plotly(("test_accuracy", "bytes")).layout.xaxis.ticksuffix == "B"


def test_accuracy_axis_has_all_values_and_targets_and_stays_below_all() -> None:
    # 0.2 to 0.9: the margin is 0.035 below and half as much more above, for a label
    assert y_axis("test_accuracy", [0.2, 0.5], [0.9])["range"] == pytest.approx([0.165, 0.9525])
    assert y_axis("test_accuracy", [0.0, 1.0], [])["range"] == [0, 1.02]


@pytest.mark.parametrize(
    ("metric", "targets", "sides"),
    [
        # accuracies rise: the lower right and the upper left are free
        ("test_accuracy", [0.3, 0.6, 0.8], ["right", "right", "left"]),
        # losses fall: the lower left and the upper right are free
        ("test_loss", [0.2, 0.6, 0.8], ["left", "right", "right"]),
        # on a range of 1 a label is 0.07 high: closer ones take turns
        ("test_accuracy", [0.8, 0.85, 0.88], ["left", "right", "left"]),
    ],
)
def test_labels_of_targets_stand_where_there_is_room(metric: str, targets: list[float], sides: list[str]) -> None:
    labels = target_lines(metric, targets, [0.0, 1.0])["annotations"]
    assert [label["xanchor"] for label in labels] == sides


# --- what it says -----------------------------------------------------------------------------------


def test_sentences(content: Content) -> None:
    figure = figure_of(content)
    # at 20 s local SGD has no evaluation yet (its first is at 40 s), so nothing is said of it
    assert text(figure, "test_accuracy", "time_s") == (
        "G=50 I=5 is first at 80% test accuracy, after 20.0 s; by then P=100 is at 30.0%."
    )
    assert text(figure, "test_accuracy", "communication_s") == (
        "To 80% test accuracy, G=50 I=5 spends 19.0 s communicating and P=50 79.0 s; P=100 does not reach it."
    )
    assert text(figure, "test_accuracy", "bytes") == (
        "To 80% test accuracy, P=50 sends 32.0 kB and G=50 I=5 168 kB; P=100 does not reach it."
    )
    assert text(figure, "test_accuracy", "iteration") == (
        "After 100 iterations, G=50 I=5 is at 88.0% test accuracy, P=50 at 85.0% and P=100 at 30.0%."
    )
    # no target of the loss: where each ends
    assert text(figure, "test_loss", "communication_s") == (
        "After 100 iterations, G=50 I=5 is at test loss 0.120 after 19.0 s of communication, "
        "P=50 at 0.150 after 79.0 s of communication and P=100 at 0.700 after 9.00 s of communication."
    )
    assert text(figure, "train_loss", "bytes") == (
        "After 100 iterations, G=50 I=5 is at train loss 0.120 after 168 kB sent, P=50 at 0.150 after 32.0 kB sent "
        "and P=100 at 0.700 after 16.0 kB sent."
    )


def test_hardest_target_is_the_highest_accuracy_and_the_lowest_loss(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", targets=(("test_loss", 0.2), ("test_loss", 0.6), ("test_accuracy", 0.99)))
    for content in content_of(folder):
        figure = figure_of(content)
        assert text(figure, "test_loss", "time_s").startswith("G=50 I=5 is first at test loss 0.2, after 20.0 s")
        # nobody is at 99%: the ends are said
        assert text(figure, "test_accuracy", "time_s").startswith(
            "After 100 iterations, G=50 I=5 is at 88.0% test accuracy after 20.0 s, P=50 at"
        )


def test_seeds_that_get_there_alone_are_told(tmp_path: Path) -> None:
    def curve(case: str, seed: int) -> list[CurveRow]:
        return [row(100, 10.0, 0.9 if case == HSGD or seed == 3 else 0.7)]

    for content in content_of(make_run(tmp_path / "run", curve, cases={LOCAL: PERIODS[LOCAL], HSGD: PERIODS[HSGD]})):
        assert text(figure_of(content), "test_accuracy", "communication_s") == (
            "To 80% test accuracy, G=50 I=5 spends 9.00 s communicating; P=50 reaches it with 1 of 3 seeds only."
        )


def test_case_that_is_not_finished_is_not_said_to_miss_a_target(tmp_path: Path) -> None:
    running = [TrialKey(SLOW, seed) for seed in (1, 2, 3)]
    for content in content_of(make_run(tmp_path / "run", unfinished=running)):
        assert "P=100" not in text(figure_of(content), "test_accuracy", "bytes")
        assert lines(figure_of(content), "test_accuracy", "bytes").keys() == {LOCAL, HSGD, SLOW}
        assert unfinished(content) == (
            "This run is not finished: 6 of 9 trials are done, 3 under way. "
            "The table counts finished trials only; the figures show what there is so far."
        )


def test_finished_run_is_not_said_to_be_unfinished(content: Content) -> None:
    assert unfinished(content) == ""


def test_several_runs_are_told_apart(tmp_path: Path) -> None:
    one = make_run(tmp_path / "one", name="one")
    other = make_run(tmp_path / "other", name="other", unfinished=[TrialKey(LOCAL, 1)], readable=True)
    for content in content_of(one, other):
        figure = figure_of(content)
        assert list(dict.fromkeys(column(figure, "case"))) == [
            f"{run}: {case}" for run in ("one", "other") for case in PERIODS
        ]
        assert text(figure, "test_accuracy", "bytes").startswith("To 80% test accuracy, one: P=50 sends 32.0 kB")
        assert unfinished(content).startswith("Not finished: other (8 of 9 trials are done, 1 under way). The table")


# --- runs that lack something -----------------------------------------------------------------------


def test_without_the_network_there_are_no_bytes(tmp_path: Path) -> None:
    for content in content_of(make_run(tmp_path / "run", readable=False)):
        figure = figure_of(content)
        known = ["time_s", "communication_s", "iteration", "round", "uploaded_bytes"]
        assert [key for key, _ in figure.switches[1].options] == known
        assert "bytes" not in [one.name for one in figure.columns]
        assert "sent" not in rings(figure, "test_accuracy", "time_s")[LOCAL]["text"][0]


def test_bytes_of_one_of_two_runs_compare_nothing(tmp_path: Path) -> None:
    folders = (make_run(tmp_path / "one"), make_run(tmp_path / "old", readable=False))
    for content in content_of(*folders):
        figure = figure_of(content)
        assert len(figure.switches[1].options) == 5
        assert column(figure, "bytes") == [16_000, 32_000, 84_000, 168_000, 16_000, *[None] * 5]
        assert figure.plotly() is not None


def test_run_that_was_not_trained_shows_its_time(tmp_path: Path) -> None:
    for content in content_of(make_run(tmp_path / "run", untrained)):
        figure = figure_of(content)
        assert [picture.key for picture in figure.pictures] == [("time_s", "iteration"), ("time_s", "bytes")]
        found = lines(figure, "time_s", "iteration")[LOCAL]
        assert (found["x"], found["y"]) == ([50, 100], [40.0, 80.0])
        assert drawn(figure, "time_s", "iteration")[1]["y"] == [41.0, 81.0]
        assert not rings(figure, "time_s", "iteration")
        assert text(figure, "time_s", "iteration") == (
            "Timing only, nothing was trained: P=100 takes 10.0 s for 100 iterations, "
            "G=50 I=5 takes 20.0 s for 100 iterations and P=50 takes 80.0 s for 100 iterations."
        )
        assert "P=50 takes 80.0 s for 100 iterations, in which it sends 32.0 kB" in text(figure, "time_s", "bytes")


def test_run_that_was_not_trained_beside_one_that_was(tmp_path: Path) -> None:
    folders = (make_run(tmp_path / "one"), make_run(tmp_path / "two", untrained, cases={LOCAL: PERIODS[LOCAL]}))
    for content in content_of(*folders):
        figure = figure_of(content)
        assert figure.note == "Without a curve, for nothing was measured: two: P=50."
        assert "two: P=50" not in lines(figure, "test_accuracy", "time_s")


def test_nothing_evaluated_gives_no_figure(tmp_path: Path) -> None:
    keys = [TrialKey(case, seed) for case in PERIODS for seed in (1, 2, 3)]
    for content in content_of(make_run(tmp_path / "run", lambda *_: [], unfinished=keys)):
        assert curves(content) is None


def test_a_curve_ends_where_its_trials_diverge(tmp_path: Path) -> None:
    losses = (2.0, 3.0, math.inf, math.inf, 1.0, math.nan)

    def curve(case: str, seed: int) -> list[CurveRow]:
        return [row(50 * i, 10.0 * i, 0.1, loss) for i, loss in enumerate(losses, start=1)]

    for content in content_of(make_run(tmp_path / "run", curve, cases={LOCAL: PERIODS[LOCAL]})):
        figure = figure_of(content)
        traces = drawn(figure, "test_loss", "time_s")
        # What a model that was not finite shows afterwards is no figure.
        assert traces[-1]["y"] == [2.0, 3.0, None, None, None, None]
        assert [trace["y"] for trace in traces[:-1]] == [[2.0, 3.0], [2.0, 3.0]]
        assert text(figure, "test_loss", "iteration") == "P=50 has diverged."
        assert text(figure, "test_accuracy", "iteration") == "P=50 has diverged."


def test_one_seed_has_no_band(tmp_path: Path) -> None:
    for content in content_of(make_run(tmp_path / "run", seeds=[2])):
        figure = figure_of(content)
        assert len(drawn(figure, "test_accuracy", "time_s")) == 3 + 2
        line = next(t for t in figure.pictures[0].traces if "customdata" in t)
        assert "customdata[0]" not in line["hovertemplate"]
        assert "seeds" not in rings(figure, "test_accuracy", "time_s")[LOCAL]["text"][0]


def test_names_are_shown_literally(tmp_path: Path) -> None:
    name = "<b>50%{y}</b>"
    for content in content_of(make_run(tmp_path / "run", cases={name: PERIODS[LOCAL]})):
        figure = figure_of(content)
        names = {trace.get("name") for trace in drawn(figure, "test_accuracy", "time_s")}
        assert names == {None, "&lt;b&gt;50%&#123;y}&lt;/b&gt;"}
        templates = {t["hovertemplate"] for picture in figure.pictures for t in picture.traces if "hovertemplate" in t}
        assert not any("50" in template for template in templates)
        assert column(figure, "case")[0] == name


# --- size -------------------------------------------------------------------------------------------


def make_long_run(folder: Path, num_rounds: int) -> Path:
    """Accuracy i / num_rounds in round i, seed k of five k rounds later; all in one transaction."""
    cases = {f"P={period}": f"period: {period}" for period in (1, 2, 4, 5, 10)}
    text = RUN.format(name="long").replace("iterations: 100", f"iterations: {50 * num_rounds}")
    text += "".join(f"  - {{name: {case}, {periods}}}\n" for case, periods in cases.items())
    keys = [TrialKey(case, seed) for case in cases for seed in range(5)]
    with RunStore.create(folder, text, {}, keys, [("test_accuracy", 0.5003)]) as store, closing(store) as _:
        connection = store.connection
        connection.execute("BEGIN")
        for key in keys:
            rows = (
                row(50 * i, 1.1 * i + 0.01 * key.seed, max(i - key.seed, 0) / num_rounds)
                for i in range(1, num_rounds + 1)
            )
            insert(connection, "curve", ((key.case, key.seed, *one.cells) for one in rows))
        connection.execute("UPDATE trials SET round = ?, iteration = ?", (num_rounds, 50 * num_rounds))
        connection.execute("COMMIT")
        for key in keys:
            store.finish_trial(key, None, "timeline", "simpy", 1.0)
    return folder


def test_long_runs_stay_small_and_keep_their_crossings(tmp_path: Path) -> None:
    for content in content_of(make_long_run(tmp_path / "run", 2_000)):
        figure = figure_of(content)
        # 50.03% of 2,000 rounds is 1000.6: seed k is there in round 1001 + k
        crossings = {50 * (1001 + seed) for seed in range(5)}
        found = list(zip(column(figure, "case"), column(figure, "iteration"), strict=True))
        for case in content.cases:
            iterations = [iteration for name, iteration in found if name == case.name]
            assert {50, 100_000, *crossings} <= {*iterations}
            assert len(iterations) <= MOST_POINTS + 5
        assert list(rings(figure, "test_accuracy", "iteration")["P=1"]["x"]) == [50 * 1003]
        assert len(figure.as_json()) < 1_000_000
        assert "Of up to 2,000 evaluations of a case about 600 are drawn and listed" in figure.note


def test_listed() -> None:
    assert [listed(list("abc"[:n])) for n in range(4)] == ["", "a", "a and b", "a, b and c"]
    assert listed(list("abcd"), most=2) == "a, b and 2 more"
