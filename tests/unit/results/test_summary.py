"""The time-to-target table and the answer, by hand numbers."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from hsgd_emu.results.read import read_run
from hsgd_emu.results.rows import TrialKey
from hsgd_emu.results.store import RunStore
from hsgd_emu.results.summary import median_reached, published_line, summarise
from hsgd_emu.results.wording import CaseSummary, TargetSummary, answer, header, number, render_rows, target_label

from .conftest import CASES, RUN_YAML, SEEDS, NewStore, write_trial


def fill(store: RunStore, local_s: list[float | None], hsgd_s: list[float | None]) -> None:
    """Two rows per trial; the second reaches 0.85 at the given time, or stays at 0.7 (None)."""
    for case, times_s in zip(CASES, (local_s, hsgd_s), strict=True):
        for seed, time_s in zip(SEEDS, times_s, strict=True):
            write_trial(store, TrialKey(case, seed), [(1.0, 0.4), (time_s or 900.0, 0.85 if time_s else 0.7)])


def test_median_and_spread_over_seeds(new_store: NewStore) -> None:
    with new_store() as store:
        fill(store, [673.0, 660.0, 700.0], [160.3, 155.1, 166.0])
        summaries = summarise(store)
        assert summaries == summarise(store.folder)
    assert [s.local_sgd for s in summaries] == [True, False]
    reached = summaries[1].targets[0]
    assert (reached.median_time_s, reached.least_time_s, reached.most_time_s) == (160.3, 155.1, 166.0)
    assert (reached.median_iterations, reached.communication_share) == (100, 0.75)
    assert header(summaries) == [
        "case",
        "time to 80% test accuracy",
        "iterations",
        "communication",
        "final accuracy",
        "final time",
    ]
    assert render_rows(summaries)[1] == [
        "G=50 I=5",
        "160.3 s (155.1-166.0)",
        "100",
        "75%",
        "85.0%",
        "160.3 s",
    ]
    assert render_rows(summaries, details=False)[0] == ["P=5", "673.0 s (660.0-700.0)", "85.0%", "673.0 s"]
    # 673 / 160.3 = 4.198
    assert answer(summaries) == (
        "To 80% test accuracy, G=50 I=5 takes 160 s, 4.2 times less than the best local SGD (P=5, 673 s); "
        "median of 3 seeds."
    )


def test_case_that_one_of_three_seeds_reaches_is_not_reached(new_store: NewStore) -> None:
    with new_store() as store:
        fill(store, [None, 650.0, None], [160.0, 155.0, None])
        summaries = summarise(store)
    assert render_rows(summaries, details=False)[0][1] == "not reached (1 of 3 seeds)"
    # 155, 160, never: the middle one is 160.
    assert render_rows(summaries, details=False)[1][1] == "160.0 s (155.0-160.0, 2 of 3 seeds)"
    assert answer(summaries) == (
        "To 80% test accuracy, G=50 I=5 takes 160 s; no other case reached it; median of 3 seeds."
    )


PUBLISHED = """\
published:
  source: |
    Wang et al. 2022
    (AAAI), Table 2
  times:
  - {case: P=5, metric: test_accuracy, target: 0.8, time_s: 673.5}
  - {case: P=5, time_s: 7, iterations: 50}
"""


def test_published_times_stand_beside_their_target(new_store: NewStore) -> None:
    levels = (("test_accuracy", 0.8), ("test_accuracy", 0.9))
    with new_store(run=RUN_YAML + PUBLISHED, targets=levels) as store:
        fill(store, [673.0, 660.0, 700.0], [160.3, 155.1, 166.0])
        summaries = summarise(store)
    heads = ["case", "time to 80% test accuracy", "published", "time to 90% test accuracy"]
    assert header(summaries, details=False) == [*heads, "final accuracy", "final time"]
    assert [row[2] for row in render_rows(summaries, details=False)] == ["673.5 s", "-"]
    rows = render_rows(summaries)
    assert [len(row) for row in rows] == [len(header(summaries))] * 2
    assert rows[0][1:5] == ["673.0 s (660.0-700.0)", "673.5 s", "100", "75%"]
    assert published_line(store.folder, summaries) == ["published: Wang et al. 2022 (AAAI), Table 2"]
    assert read_run(store.folder).summary().published_time_s.dropna().tolist() == [673.5]


def test_nothing_is_said_of_published_times_where_none_can_be_shown(new_store: NewStore) -> None:
    with new_store() as store:
        assert published_line(store.folder, summarise(store)) == []
    # Timing only: no target is reached, so none has a column.
    with new_store("silent", run=RUN_YAML + PUBLISHED) as store:
        write_trial(store, TrialKey("P=5", 1), [(10.0, None)])
        silent = [replace(one, final_test_loss=None) for one in summarise(store)]
    assert published_line(store.folder, silent) == []
    assert header(silent) == ["case", "final accuracy", "final time"]


@pytest.mark.parametrize(
    ("values", "median"),
    [
        ([3.0, 1.0, 2.0], 2.0),
        ([1.0, 2.0], 1.5),
        ([5.0, None, 1.0], 5.0),  # 1, 5, never
        ([None, 4.0], None),  # exactly half of them: one of the two in the middle is a miss
        ([None, 4.0, 3.0, 5.0], 4.5),
        ([1.0, 2.0, 3.0, None], 2.5),
        ([1.0, None, None], None),
        ([None], None),
        ([], None),
    ],
)
def test_median_counts_a_seed_that_never_reached_as_the_last(values: list[float | None], median: float | None) -> None:
    assert median_reached(values) == median


def test_only_finished_trials_count(new_store: NewStore) -> None:
    with new_store() as store:
        assert answer(summarise(store)) == "No trial has finished yet."
        assert render_rows(summarise(store), details=False)[0] == ["P=5", "not finished", "-", "-"]
        write_trial(store, TrialKey("P=5", 2), [(10.0, 0.9)])
        summaries = summarise(store)
    assert (summaries[0].num_seeds, summaries[0].num_finished, summaries[1].num_finished) == (3, 1, 0)
    assert answer(summaries).endswith("P=5 takes 10.0 s; no other case reached it; one seed.")


def case(name: str, local: bool, accuracy: float | None, **times_s: float | None) -> CaseSummary:
    """A case with targets a50, a80 (accuracy) and l30 (test loss 0.3)."""
    targets = tuple(
        TargetSummary(
            "test_accuracy" if key[0] == "a" else "test_loss",
            int(key[1:]) / 100,
            1,
            int(time_s is not None),
            time_s,
            time_s,
            time_s,
            100.0,
            0.5,
        )
        for key, time_s in times_s.items()
    )
    loss = None if accuracy is None else 0.5
    return CaseSummary(name, local, 1, 1, targets, accuracy, loss, 900.0, 2000.0)


def test_answer_takes_the_hardest_target_that_some_case_reaches() -> None:
    cases = [case("A", True, 0.7, a50=10.0, a80=None), case("B", False, 0.7, a50=5.0, a80=None)]
    assert answer(cases).startswith("To 50% test accuracy, B takes 5.00 s, 2.0 times less than the best local SGD (A")


def test_answer_prefers_accuracy_to_loss() -> None:
    cases = [case("A", True, 0.9, a80=10.0, l30=8.0)]
    assert answer(cases).startswith("To 80% test accuracy, A takes")
    assert answer([case("A", True, 0.9, a80=None, l30=8.0)]).startswith("To test loss 0.3, A takes 8.00 s")


def test_answer_compares_with_the_other_kind_even_if_a_sibling_is_faster() -> None:
    cases = [
        case("A", True, 0.9, a80=100.0),
        case("B", False, 0.9, a80=50.0),
        case("C", False, 0.9, a80=60.0),
    ]
    assert "2.0 times less than the best local SGD (A, 100 s)" in answer(cases)
    assert "1.2 times less than the next case (C, 60.0 s)" in answer(cases[1:])


def test_answer_names_no_kind_where_cases_differ_in_more_than_the_schedule() -> None:
    cases = [case("A", True, 0.9, a80=10.0), replace(case("B", False, 0.9, a80=20.0), own_settings=True)]
    assert "2.0 times less than the next case (B, 20.0 s)" in answer(cases)


def test_answer_says_when_local_sgd_wins_or_ties() -> None:
    cases = [case("A", True, 0.9, a80=50.0), case("B", False, 0.9, a80=51.0)]
    assert "A takes 50.0 s, about as long as the best H-SGD (B, 51.0 s)" in answer(cases)


def test_answer_when_nothing_is_reached_set_or_trained() -> None:
    assert answer([case("A", True, 0.61, a80=None)]) == (
        "No case reached 80% test accuracy with more than half of its seeds. "
        "The highest final accuracy is 61.0%, by A after 900 s; one seed."
    )
    assert answer([case("A", True, 0.61)]).startswith("No target was set. The highest final accuracy is 61.0%")
    assert answer([case("A", True, None)]) == (
        "Timing only, nothing was trained: A takes 900 s for 2,000 iterations; one seed."
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (160.3, "160.3"),
        (166.0, "166.0"),
        (12345.6, "12,346"),
        (0.012341, "0.01234"),
        (0.0, "0"),
        (4.2, "4.200"),
    ],
)
def test_numbers_have_four_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_target_labels() -> None:
    assert target_label("test_accuracy", 0.995) == "99.5% test accuracy"
    assert target_label("train_loss", 0.05) == "train loss 0.05"


def test_summary_needs_neither_pandas_nor_torch() -> None:
    code = "import sys, hsgd_emu.results.summary as s, hsgd_emu.results.read; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"pandas", "numpy", "torch", "pyarrow", "yaml"} & set(loaded)
