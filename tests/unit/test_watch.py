"""`hsgd-emu watch`: what it shows of a run that is half done, and when it ends by itself."""

from __future__ import annotations

import fcntl
import io
import math
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from report.study_fixture import grid, make_study
from results.conftest import CASES, KEYS, RUN_YAML, commit, curve_row, write_trial
from rich.console import Console
from typer.testing import CliRunner

from hsgd_emu.cli import app
from hsgd_emu.errors import ConfigError
from hsgd_emu.results.folder import lock_folder, remove_run
from hsgd_emu.results.rows import TrialKey
from hsgd_emu.results.store import RunStore
from hsgd_emu.study.sweep.store import StudyStore
from hsgd_emu.watch import watch
from hsgd_emu.watch.board import Pace, RunBoard, is_written
from hsgd_emu.watch.drawing import bar, chosen_trials, draw_run, duration, sparkline

RUN = RUN_YAML + "train: {iterations: 200}\n"
TARGETS = (("test_accuracy", 0.5), ("test_accuracy", 0.8))


def create(folder: Path, keys: tuple[TrialKey, ...] = KEYS) -> RunStore:
    return RunStore.create(folder, RUN, {}, keys, TARGETS)


@pytest.fixture
def half(tmp_path: Path) -> RunStore:
    """P=5: seed 1 is finished, at 100% after 20 s; seed 2 is half way, at 50% after 12 s; all others wait."""
    store = create(tmp_path / "half")
    write_trial(store, KEYS[0], [(5.0, 0.25), (10.0, 0.5), (15.0, 0.75), (20.0, 1.0)])
    commit(store, KEYS[1], curve_row(1, 6.0, 0.25, 2.25))
    commit(store, KEYS[1], curve_row(2, 12.0, 0.5, 1.75))
    yield store
    store.close()


def text_of(folder: Path, width: int = 120, height: int | None = None) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(draw_run(RunBoard(folder).read(), width, height))
    return console.file.getvalue()


def row_of(text: str, case: str, seed: int) -> list[str]:
    """The cells of a trial's row; they are two spaces or more apart."""
    (line,) = [
        line for line in text.splitlines() if line.startswith(case) and line[len(case) :].split()[0] == str(seed)
    ]
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


# --- the pieces -------------------------------------------------------------------------------------


def test_sparkline_is_one_bar_per_value_where_there_is_room_else_the_mean_of_its_share():
    assert sparkline([0.0, 0.5, 1.0], 8, 0.0, 1.0) == "▁▅█"
    # Means of (0, 0.2), (0.4, 0.6), (0.8, 1): 0.1, 0.5 and 0.9 of eight levels.
    assert sparkline([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], 3, 0.0, 1.0) == "▁▅█"
    assert len(sparkline([0.1] * 1000, 16, 0.0, 1.0)) == 16


def test_sparkline_of_nothing_of_one_level_and_of_what_was_not_measured():
    assert sparkline([], 8, 0.0, 1.0) == ""
    assert sparkline([0.5], 0, 0.0, 1.0) == ""
    assert sparkline([0.3, 0.3], 8, 0.3, 0.3) == "▅▅"
    assert sparkline([None, 0.0, math.nan, 1.0], 8, 0.0, 1.0) == " ▁ █"
    # Beyond the scale is at its end.
    assert sparkline([-1.0, 2.0], 8, 0.0, 1.0) == "▁█"


def test_a_bar_is_full_only_at_the_end():
    assert [bar(share, 4) for share in (0, 0.249, 0.25, 0.999, 1)] == ["╌╌╌╌", "╌╌╌╌", "━╌╌╌", "━━━╌", "━━━━"]


def test_durations():
    assert [duration(s) for s in (None, 0, 59.6, 61, 3723)] == ["-", "0:00", "1:00", "1:01", "1:02:03"]


# --- how long still ---------------------------------------------------------------------------------


def test_pace_is_the_trials_own_then_its_cases_then_that_of_all():
    mine, sibling, other = TrialKey("a", 1), TrialKey("a", 2), TrialKey("b", 1)
    pace = Pace()
    assert pace.wall_s_per_iteration(mine) is None
    pace.finished(other, 0.3)
    assert pace.wall_s_per_iteration(mine) == 0.3
    pace.finished(sibling, 0.1)
    assert pace.wall_s_per_iteration(mine) == 0.1
    # Waiting until 10; then 50 iterations in 5 s: 0.1 each; the first 50 began at nobody knows when.
    for wall_s, iteration in ((0.0, 0), (10.0, 50), (12.5, 50), (15.0, 100)):
        pace.see(mine, iteration, wall_s)
    assert pace.wall_s_per_iteration(mine) == pytest.approx(0.1)


def test_pace_forgets_what_is_more_than_a_minute_ago():
    pace, key = Pace(), TrialKey("a", 1)
    for second in range(200):
        # 10 iterations a second at first, one a second for the last 100 s.
        pace.see(key, 10 * min(second, 100) + max(0, second - 100) + 1, float(second))
    assert pace.wall_s_per_iteration(key) == pytest.approx(1.0)


def test_time_left_of_a_trial_and_of_the_run(half):
    now_s = [0.0]
    board = RunBoard(half.folder, clock=lambda: now_s[0])
    # Seed 1 took 0.5 s for 200 iterations, so seed 2's last 100 take 0.25 s, and four whole trials 2 s.
    run = board.read()
    assert run.trials[1].left_wall_s == pytest.approx(0.25)
    assert run.left_wall_s == pytest.approx(0.25 + 4 * 0.5)
    now_s[0] = 10.0
    commit(half, KEYS[1], curve_row(3, 18.0, 0.6))
    # Watched, seed 2 takes 10 s for 50 iterations: 10 s more. Its case's median is (0.0025 + 0.2) / 2 each.
    run = board.read()
    assert run.trials[1].left_wall_s == pytest.approx(10.0)
    assert run.left_wall_s == pytest.approx(10.0 + 4 * 200 * (0.0025 + 0.2) / 2)


def test_a_trial_that_ended_with_its_targets_tells_its_pace_by_what_it_did(tmp_path):
    with create(tmp_path / "early") as store:
        write_trial(store, KEYS[0], [(5.0, 0.75)])  # 50 of 200 iterations in half a second
        run = RunBoard(store.folder).read()
    assert run.left_wall_s == pytest.approx((len(KEYS) - 1) * 200 * 0.5 / 50)


def test_time_left_is_not_known_before_anything_went_on(tmp_path):
    with create(tmp_path / "new") as store:
        assert RunBoard(store.folder).read().left_wall_s is None
        assert "0 of 6 trials finished  - left" in text_of(store.folder)


# --- the picture ------------------------------------------------------------------------------------


def test_picture_of_a_run_that_is_half_done(half):
    text = text_of(half.folder)
    assert row_of(text, "P=5", 1) == [
        "P=5",
        "1",
        "finished",
        "━" * 12 + " 100%",
        "200",
        "20.00 s",
        "100.0%",
        "1.00",
        "▁▃▆█",
    ]
    # 2 of 4 rounds; accuracies between 0.25 and 1: 0.5 is a third up. 100 iterations at 0.5 s / 200: 0.25 s.
    assert row_of(text, "P=5", 2) == [
        *("P=5", "2", "running", "━" * 6 + "╌" * 6, "50%", "100", "12.00 s", "50.0%", "1.75", "▁▃", "0:00"),
    ]
    assert row_of(text, "G=50 I=5", 3) == ["G=50 I=5", "3", "waiting", "╌" * 12, "0%", "0", "-", "-", "-"]
    # 50%: seeds took 10 s and 12 s; 80%: one so far, the others may still reach it.
    assert "50% test accuracy: P=5 11.00 s\n" in text
    assert "80% test accuracy: P=5 20.00 s\n" in text
    # 1.5 of 6 trials.
    assert "small  ━━━━━╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌ 25%  1 of 6 trials finished  0:02 left" in text


def test_targets_that_were_missed_are_said(tmp_path):
    with create(tmp_path / "run") as store:
        for key in KEYS:
            # G=50 I=5: seed 1 reaches 80%, seeds 2 and 3 end without.
            last = 0.8 if key == KEYS[3] else 0.6
            write_trial(store, key, [(5.0, 0.5), (10.0, last)])
    text = text_of(store.folder)
    assert "50% test accuracy: P=5 5.000 s, G=50 I=5 5.000 s\n" in text
    assert "80% test accuracy: G=50 I=5 only 1 of 3 seeds\n" in text


def test_a_run_without_learning_shows_its_times(tmp_path):
    with create(tmp_path / "run") as store:
        commit(store, KEYS[0], curve_row(1, 5.0, None, None))
        text = text_of(store.folder)
    assert row_of(text, "P=5", 1)[3:] == ["━━━╌╌╌╌╌╌╌╌╌", "25%", "50", "5.000 s", "-", "-", "-"]
    assert "80% test accuracy: not reached yet" in text


def test_every_width_has_its_form(half):
    for width in (200, 120, 90, 70, 60, 40):
        text = text_of(half.folder, width, 30)
        assert max(map(len, text.splitlines())) <= width
        head = text.splitlines()[0].split()
        assert {"case", "seed", "progress", "accuracy", "left"} <= set(head)
    assert "…" not in text_of(half.folder, 70, 30)


def test_rows_are_limited_to_the_terminal_running_ones_first(tmp_path):
    keys = tuple(TrialKey(case, seed) for case in CASES for seed in range(150))
    with create(tmp_path / "many", keys) as store:
        for key in keys[:20]:
            write_trial(store, key, [(5.0, 0.5)])
        commit(store, keys[200], curve_row(1, 5.0, 0.3))
        board = RunBoard(store.folder)
        text = text_of(store.folder, 120, 20)
        lines = text.splitlines()
        # One line stays free for the cursor.
        assert len(lines) == 19
        assert lines[1].split()[:4] == ["G=50", "I=5", "50", "running"]
        assert "not shown: 9 finished, 279 waiting" in text
        assert len(chosen_trials(board.read(), 5)) == 5
        assert len(text_of(store.folder).splitlines()) == 1 + 300 + 1 + 2 + 1 + 1


def test_names_are_shown_as_they_are(tmp_path):
    hostile = TrialKey("[bold red]x[/] <b>&amp; " + "n" * 70, 1)
    with create(tmp_path / "run", (hostile,)) as store:
        assert hostile.case in text_of(store.folder, 1000)
        assert "[bold red]x[/] <b>&amp; nnn…" in text_of(store.folder, 160, 30)


# --- looking on -------------------------------------------------------------------------------------


def test_a_trial_begun_anew_and_a_run_replaced_are_read_anew(half):
    board = RunBoard(half.folder)
    assert board.read().trials[1].curve.accuracies == [0.25, 0.5]
    half.restart_trial(KEYS[1])
    commit(half, KEYS[1], curve_row(1, 6.0, 0.3))
    assert board.read().trials[1].curve.accuracies == [0.3]
    assert board.read().trials[0].curve.accuracies == [0.25, 0.5, 0.75, 1.0]
    half.close()
    remove_run(half.folder)
    with create(half.folder) as store:
        commit(store, KEYS[0], curve_row(1, 6.0, 0.9))
        run = board.read()
    assert [trial.curve.accuracies for trial in run.trials[:2]] == [[0.9], []]


def test_rows_are_read_once(half):
    board = RunBoard(half.folder)
    for number in (3, 4):
        board.read()
        commit(half, KEYS[1], curve_row(number, 6.0 * number, 0.5))
    assert board.read().trials[1].curve.accuracies == [0.25, 0.5, 0.5, 0.5]


def test_looking_at_the_lock_takes_it_from_nobody(half):
    for _ in range(3):
        assert is_written(half.folder)
    half.close()
    assert not is_written(half.folder)
    # Free for who comes next; and who else looks at the same moment is no writer.
    os.close(lock_folder(half.folder))
    with (half.folder / "lock").open() as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        assert not is_written(half.folder)
    (half.folder / "lock").unlink()
    assert not is_written(half.folder)
    assert not (half.folder / "lock").exists()


def shown(folder: Path, live: bool) -> str:
    console = Console(file=io.StringIO(), width=400, height=40, force_terminal=live)
    watch(folder, console, live, every_s=0.01)
    return console.file.getvalue()


def test_a_run_that_nobody_writes_any_more_says_how_to_go_on(half):
    assert "Nobody" not in shown(half.folder, live=False)
    half.close()
    for live in (False, True):
        text = shown(half.folder, live)
        assert "5 of its 6 trials are not finished: `hsgd-emu run FILE --resume --out " in text
        assert "stopped" in text
        assert "running" not in text


@pytest.mark.parametrize(
    ("environment", "advice"),
    [
        ({"timing_only": True}, "run FILE --resume --timing-only --out"),
        ({"parent": {}}, "retime RUN_DIR --force --out"),
    ],
)
def test_how_to_go_on_depends_on_what_was_begun(tmp_path, environment, advice):
    RunStore.create(tmp_path / "run", RUN, environment, KEYS, TARGETS).close()
    assert advice in shown(tmp_path / "run", live=False)


def test_watching_ends_with_the_answer_when_the_run_is_finished(tmp_path):
    folder, begun = tmp_path / "run", threading.Event()

    def write() -> None:
        with create(folder) as store:
            begun.set()
            for number, key in enumerate(KEYS):
                time.sleep(0.03)
                write_trial(store, key, [(5.0, 0.5), (10.0 + 10 * (number < 3), 0.8)])

    writer = threading.Thread(target=write)
    writer.start()
    begun.wait(10)
    text = shown(folder, live=True)
    writer.join()
    # Seen on its way, and at its end.
    assert "waiting" in text
    assert "6 of 6 trials finished" in text
    answer = "To 80% test accuracy, G=50 I=5 takes 10.0 s, 2.0 times less than the best local SGD (P=5, 20.0 s)"
    assert text.rstrip().splitlines()[-1].startswith(answer)


def test_a_folder_without_a_run_is_bad_input(tmp_path):
    with pytest.raises(ConfigError, match="is no folder; right would be the folder that `hsgd-emu run` wrote"):
        watch(tmp_path / "nowhere", Console(file=io.StringIO()), live=True)


def test_a_study_shows_its_scenarios_and_its_answers(tmp_path):
    crossovers = [("test_accuracy", 0.8, "far", '{"near": 1}', "P=5", "G=50 I=5", 2.0)]
    specs = {axis: {"rtt_s": axis, "values": [1, 2]} for axis in ("far", "near")}
    folder = make_study(tmp_path / "study", grid(far=[1, 4], near=[1, 2]), crossovers=crossovers, specs=specs)
    text = shown(folder, live=False)
    assert "far_near  ━━━━━━━━━━━━━━━━━━━━ 100%  4 of 4 scenarios timed\n\n" in text
    assert "G=50 I=5" in text.splitlines()[-1]


def test_a_study_that_was_left_says_how_to_go_on(tmp_path):
    folder = make_study(tmp_path / "study", grid(far=[1, 4], near=[1, 2]), finished=False)
    assert "`hsgd-emu study FILE --out" in shown(folder, live=True)
    with StudyStore.open(folder):
        assert "Nobody" not in shown(folder, live=False)


# --- the command ------------------------------------------------------------------------------------


def test_in_a_pipe_it_is_one_plain_picture(half):
    command = [sys.executable, "-m", "hsgd_emu.cli", "watch", str(half.folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert "1 of 6 trials finished" in done.stdout
    assert len([line for line in done.stdout.splitlines() if line.startswith(("P=5", "G=50"))]) == 6


def test_ctrl_c_says_that_the_run_goes_on_and_is_exit_130(half, monkeypatch):
    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hsgd_emu.watch.watch", interrupted)
    done = CliRunner().invoke(app, ["watch", str(half.folder)])
    assert done.exit_code == 130
    assert "--resume" not in done.output
    assert "the run itself is as it was" in done.output


def test_without_a_run_the_command_is_exit_2(tmp_path):
    done = CliRunner().invoke(app, ["watch", str(tmp_path)])
    assert done.exit_code == 2
    assert "has no run.sqlite" in done.output
