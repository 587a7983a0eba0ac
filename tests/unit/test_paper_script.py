"""benchmarks/paper.py: what travels, what is done in which order and time, and what is kept."""

from __future__ import annotations

import lzma
import os
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import pandas as pd
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))

import paper  # noqa: E402
import paper_learn  # noqa: E402
import paper_pack  # noqa: E402
import paper_plan  # noqa: E402
import paper_report  # noqa: E402
import paper_run  # noqa: E402

from hsgd_emu.experiment import load_experiment  # noqa: E402
from hsgd_emu.learning.checkpoint import Checkpoints  # noqa: E402
from hsgd_emu.metrics import Metrics  # noqa: E402
from hsgd_emu.results.read import read_run  # noqa: E402
from hsgd_emu.results.rows import CurveRow, TrialKey  # noqa: E402
from hsgd_emu.results.store import RunStore  # noqa: E402
from hsgd_emu.run import Options, Progress, run_experiment, session_of  # noqa: E402

RUN = """
name: stopped
topology:
  levels: [{name: site, count: 2, uplink: far}, {name: worker, count: 2, uplink: near}]
profiles: {near: {rtt_s: 0.1}, far: {rtt_s: 0.3}}
compute: {step_s: 0.01}
data: {dataset: digits, partition: by_label}
model: {name: mlp, hidden: [8]}
train: {batch_size: 5, iterations: 12}
cases: [{name: local, period: 4}, {name: hierarchical, periods: [6, 2]}]
"""


# --- what travels -----------------------------------------------------------------------------------


def test_packages_come_in_the_versions_that_are_tested_here_and_for_the_other_machine(tmp_path):
    lines = paper_pack.packing_list(None, ["3.12"])
    assert lines[:-1] == [f"{pin}, for Python 3.12" for pin in paper_pack.pins()]
    command = paper_pack.pip_command("3.12", tmp_path)
    assert command[command.index("--python-version") + 1] == "3.12"
    assert "manylinux2014_x86_64" in command
    assert "--only-binary=:all:" in command
    assert set(paper_pack.pins()) < set(command)


def test_wheels_fit_this_python_or_any():
    here = f"cp{sys.version_info.major}{sys.version_info.minor}"
    machine = f"manylinux2014_{os.uname().machine}"
    fits = {
        "simpy-4.1.2-py3-none-any.whl": True,
        "six-1.0-py2.py3-none-any.whl": True,
        f"pydantic_core-2.5-{here}-{here}-{machine}.manylinux_2_17_{os.uname().machine}.whl": True,
        f"some-1.0-cp38-abi3-{machine}.whl": True,
        f"pydantic_core-2.5-cp39-cp39-{machine}.whl": False,
        f"pydantic_core-2.5-{here}-{here}-manylinux2014_riscv64.whl": False,
    }
    assert {wheel: paper_pack.fits(wheel) for wheel in fits} == fits


def test_too_much_is_refused(capsys):
    paper_pack.check_size(63 * paper_pack.MIB, paper_pack.MIB)
    assert "63.0 MiB carried and 1.0 MiB of checkout" in capsys.readouterr().out
    with pytest.raises(paper_pack.PaperError, match="more than the 64 MiB"):
        paper_pack.check_size(63 * paper_pack.MIB, paper_pack.MIB + 1)


def test_the_checkout_counts_without_what_is_carried():
    whole = paper_pack.checkout_bytes(Path("/nowhere"))
    if not whole:
        pytest.skip("no repository")
    assert 0 < paper_pack.checkout_bytes(BENCHMARKS) < whole < paper_pack.MOST_BYTES


def test_data_that_are_no_archive_are_refused_before_anything_is_fetched(tmp_path, capsys):
    (tmp_path / "images").write_text("none")
    assert paper.main(["pack", "--data", str(tmp_path / "images"), "--out", str(tmp_path / "carry")]) == 2
    assert "is no tar archive" in capsys.readouterr().err
    assert not (tmp_path / "carry").exists()


def wheels(carry: Path, names: tuple[str, ...]) -> None:
    (carry / "wheels").mkdir(parents=True, exist_ok=True)
    for name in names:
        stem = name.replace("-", "_")
        with zipfile.ZipFile(carry / "wheels" / f"{stem}-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{stem}/__init__.py", "")


def test_wheels_are_unpacked_whole_and_once(tmp_path):
    carry, site = tmp_path / "carry", tmp_path / "site"
    wheels(carry, paper_pack.PACKAGES[1:])
    with pytest.raises(paper_pack.PaperError, match=f"of {paper_pack.PACKAGES[0]}; pack with --python 3"):
        paper_pack.unpack_wheels(carry, site)
    assert not site.exists()
    wheels(carry, paper_pack.PACKAGES)
    paper_pack.unpack_wheels(carry, site)
    assert (site / "pydantic_core" / "__init__.py").is_file()
    (site / "kept").touch()
    paper_pack.unpack_wheels(carry, site)
    assert (site / "kept").exists()
    wheels(carry, ("one_more",))
    paper_pack.unpack_wheels(carry, site)
    assert (site / "one_more").is_dir()
    assert not (site / "kept").exists()


@pytest.mark.parametrize("top", ["", "cifar10_jpeg/"])
def test_images_are_unpacked_with_or_without_a_folder_of_their_own(tmp_path, top):
    (tmp_path / "image").write_bytes(b"jpeg")
    for part in ("train", "test"):
        with tarfile.open(tmp_path / f"{part}.tar.xz", "w:xz") as archive:
            for name in ("train", "test")[: 1 + (part == "test")]:
                archive.add(tmp_path / "image", f"{top}{name}/cat/0.jpg")
    with pytest.raises(paper_pack.PaperError, match="holds no train/ and test/"):
        paper_pack.unpack_images(tmp_path / "train.tar.xz", tmp_path / "data")
    paper_pack.unpack_images(tmp_path / "test.tar.xz", tmp_path / "data")
    assert (tmp_path / "data" / "train" / "cat" / "0.jpg").read_bytes() == b"jpeg"


# --- what is done, in which order and time ----------------------------------------------------------


def test_all_parts_are_run_files_that_can_be_run_and_table_2_comes_first():
    parts = paper_plan.parts_of([], small=False)
    assert [part.name for part in parts][:2] == ["table2", "figure3a"]
    for part in [*parts, *paper_plan.parts_of([], small=True), *paper_plan.parts_of([], small=True, made_up=True)]:
        experiment = load_experiment(part.file, part.assignments())
        assert len(experiment.seeds) == (3 if part.name == "table2" else 2 if part.name == "table2_small" else 1)


def test_what_is_set_by_hand_counts_instead_of_what_a_part_sets():
    [part] = paper_plan.parts_of(["figure3b"], small=False, sets=["seeds=[7]", "train.iterations=200"])
    assert sorted(part.sets) == ["cases", "seeds", "train.iterations"]
    assert part.sets["seeds"] == "[7]"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only", "table3"], "there is no such part; there are table2, figure3a"),
        (["--set", "seeds"], "expected KEY=VALUE"),
        (["--minutes", "0.5"], "25 s go to stopping and copying"),
    ],
)
def test_bad_input_is_said_in_a_sentence(tmp_path, capsys, words, message):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "cifar10_jpeg.tar.xz").touch()
    given = ["run", "--carry", str(tmp_path), "--work", str(tmp_path / "work"), "--device", "cpu", *words]
    assert paper.main(given) == 2
    assert message in capsys.readouterr().err


def test_without_images_only_the_rehearsal_runs(tmp_path, capsys):
    assert paper.main(["run", "--carry", str(tmp_path), "--work", str(tmp_path / "work")]) == 2
    assert "no images were packed" in capsys.readouterr().err


def trial(part: str, seed: int, iterations: int, period: int = 50) -> paper_plan.Trial:
    return paper_plan.Trial(part, "case", seed, iterations, period, 50)


def test_a_trial_takes_its_iterations_and_its_evaluations():
    pace = paper_plan.Pace(0.01, 0.5)
    # 1000 iterations are 10 s; every 50 one of 20 evaluations, but only every 200 where G = 200.
    assert trial("a", 1, 1000).most_s(pace) == pytest.approx(10 + 20 * 0.5)
    assert trial("a", 1, 1000, period=5).most_s(pace) == pytest.approx(10 + 20 * 0.5)
    assert trial("a", 1, 1000, period=200).most_s(pace) == pytest.approx(10 + 5 * 0.5)
    assert trial("a", 1, 0).most_s(pace) == 0


def test_the_plan_says_what_fits():
    trials = [trial("a", 1, 0), trial("a", 1, 3000), trial("a", 2, 6000), trial("b", 1, 0)]
    # 3000 iterations: 30 + 30 s; 6000: 120 s more.
    lines = paper_plan.plan_lines(trials, paper_plan.Pace(0.01, 0.5), left_s=90)
    assert lines[0] == "pace: 10.00 ms an iteration of all workers, 0.500 s an evaluation"
    assert lines[1] == "a, seed 1: 1 of 2 trials to do, at most 1.0 minutes, done after 1.0: fits into this command"
    assert "at most 2.0 minutes, done after 3.0: needs a further command" in lines[2]
    assert lines[3] == "b, seed 1: 0 of 1 trials to do"
    assert lines[4] == "all: at most 3.0 minutes of training; this command has 1.5 left"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(RUN)
    return path


def command(path: Path, out: Path, left_s: float) -> bool:
    """Run as much as fits, as one command does, and return whether all is finished."""
    watch = paper_learn.Watch(time.time() + left_s)
    run_experiment(load_experiment(path), out, Options("cpu", resume=True, threads=1), watch)
    return not watch.stopping


def test_a_trial_that_the_time_ends_goes_on_to_the_same_result(path, tmp_path, monkeypatch, capsys):
    # No checkpoint is due by itself: the one that the next command goes on from is written because the time is over.
    monkeypatch.setattr(Checkpoints, "is_due", lambda self: False)
    reached = []
    for _ in range(5):
        assert not command(path, tmp_path / "out", left_s=-1)
        trials = read_run(tmp_path / "out").trials
        reached.append(tuple(trials["iteration"]))
    # One round a command, P = 4 and G = 6; the last round of a trial finishes it, and then the command ends.
    assert reached == [(4, 0), (8, 0), (12, 0), (12, 6), (12, 12)]
    assert list(trials["status"]) == ["finished", "finished"]
    assert (trials["wall_s"] > 0).all()
    out = capsys.readouterr().out
    assert "no whole checkpoint" not in out
    assert "local, seed 1: stops at iteration 8" in out
    assert command(path, tmp_path / "out", left_s=60)
    assert command(path, tmp_path / "whole", left_s=60)
    one, other = read_run(tmp_path / "out"), read_run(tmp_path / "whole")
    pd.testing.assert_frame_equal(one.curve, other.curve, check_exact=True)
    assert list(one.trials["weights_hash"]) == list(other.trials["weights_hash"])


def test_a_line_says_where_the_run_is(path, tmp_path, capsys):
    watch = paper_learn.Watch(time.time() + 600, every_s=0)
    watch.part = "table2"
    run_experiment(load_experiment(path), tmp_path / "out", Options("cpu", threads=1), watch)
    line = next(line for line in capsys.readouterr().out.splitlines() if "iteration 8" in line)
    assert line.startswith("table2, local, seed 1: iteration 8, accuracy ")
    assert "ms an iteration" in line
    assert line.endswith("10.0 minutes left")


def test_nobody_waiting_ends_it_too():
    watch = paper_learn.Watch(time.time() + 600)
    assert not watch.is_over()
    watch.parent = -1
    assert watch.is_over()


# --- what is kept -----------------------------------------------------------------------------------


def row(iteration: int, accuracy: float) -> CurveRow:
    metrics = Metrics(train_loss=1.0, test_loss=1.0, test_accuracy=accuracy)
    return CurveRow(iteration // 4, iteration, float(iteration), 0.0, 0.0, float(iteration), 0.0, 0, 0, metrics)


def begun(path: Path, folder: Path, local: int, finished: bool = False) -> RunStore:
    """Return an open run whose local trial is at an iteration."""
    experiment = load_experiment(path)
    keys = [TrialKey(case.name, 1) for case in experiment.cases]
    session = session_of(experiment, Options("cpu", engine="usual"), Progress())
    environment = session.environment | {"timing_only": False, "message_bytes": session.message_bytes}
    store = RunStore.create(folder, experiment.resolved(), environment, keys, [])
    for iteration in range(4, local + 1, 4):
        store.commit_round(keys[0], iteration, row(iteration, 0.1), [], [], [])
    if finished:
        store.finish_trial(keys[0], "hash", "hash", "usual", 1.0)
    return store


def test_what_comes_back_is_whole_while_the_run_is_written_and_has_no_checkpoints(path, tmp_path):
    with begun(path, tmp_path / "work" / "table2", local=8) as store:
        (store.folder / "checkpoints").mkdir()
        (store.folder / "checkpoints" / "0-0.pt").write_bytes(b"large")
        paper_run.pack_results(store.folder, tmp_path / "table2.tar.xz", tmp_path)
    with tarfile.open(tmp_path / "table2.tar.xz") as archive:
        assert sorted(archive.getnames()) == [
            f"table2/{name}" for name in ("environment.json", "run.sqlite", "run.yaml")
        ]
    [folder] = paper_run.returned([tmp_path / "table2.tar.xz"], tmp_path / "unpacked")
    # The rounds were in the write-ahead log only.
    assert list(read_run(folder).curve["iteration"]) == [4, 8]
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []


def test_of_several_returns_the_furthest_goes_on_and_what_is_there_stays(path, tmp_path):
    for name, local, finished in (("one", 12, True), ("two", 12, False), ("three", 4, False)):
        begun(path, tmp_path / "runs" / name / "table2", local, finished).close()
        (tmp_path / name).mkdir()
        paper_run.pack_results(tmp_path / "runs" / name / "table2", tmp_path / name / "table2.tar.xz", tmp_path)
    places = [tmp_path / name for name in ("three", "one", "two")]
    [folder] = paper_run.returned(places, tmp_path / "unpacked")
    assert paper_run.progress(folder) == (1, 12)
    assert paper_run.seed(folder, tmp_path / "work" / "table2")
    assert not paper_run.seed(folder, tmp_path / "runs" / "three" / "table2")
    assert paper_run.progress(tmp_path / "runs" / "three" / "table2") == (0, 4)
    # It can be gone on with: the finished trial is kept, the other is learned.
    assert command(path, tmp_path / "work" / "table2", left_s=60)
    trials = read_run(tmp_path / "work" / "table2").trials
    assert list(trials["iteration"]) == [12, 12]
    assert trials["weights_hash"][0] == "hash"


def test_nothing_that_came_back_is_said(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(paper_pack.PaperError, match="holds no results"):
        paper_run.returned([tmp_path / "empty"], tmp_path / "unpacked")
    (tmp_path / "torn.tar.xz").write_bytes(lzma.compress(b"torn")[:20])
    with pytest.raises(paper_pack.PaperError, match="cannot be unpacked"):
        paper_run.returned([tmp_path / "torn.tar.xz"], tmp_path / "unpacked")


def test_an_unfinished_trial_begins_anew_where_no_checkpoint_is(path, tmp_path):
    part, experiment = paper_plan.Part("table2", {}), load_experiment(path)
    begun(path, tmp_path / "out", local=8).close()

    def left() -> list[int]:
        return [one.iterations for one in paper_learn.trials_of(part, experiment, tmp_path / "out")]

    assert left() == [12, 12]
    (tmp_path / "out" / "checkpoints").mkdir()
    assert left() == [4, 12]
    begun(path, tmp_path / "done", local=12, finished=True).close()
    assert [one.iterations for one in paper_learn.trials_of(part, experiment, tmp_path / "done")] == [0, 12]


# Only what a machine with torch, torchvision and NumPy has, and what is carried to it, can be imported.
ONLY_CARRIED = """
import importlib.metadata as metadata, re, sys
def needs(name, known):
    name = re.sub("[-_.]+", "-", name).lower()
    if name not in known:
        try:
            requires = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            return
        known.add(name)
        for one in requires:
            if "extra ==" not in one:
                needs(re.match("[A-Za-z0-9._-]+", one)[0], known)
there = set({packages!r})
for name in ("torch", "torchvision", "numpy"):
    needs(name, there)
theirs = metadata.packages_distributions()
class Only:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        owners = {{re.sub("[-_.]+", "-", one).lower() for one in theirs.get(name.partition(".")[0], [])}}
        return None if owners and not owners & there else self.finder.find_spec(name, path, target)
sys.meta_path[:] = map(Only, sys.meta_path)
version = metadata.version
def only_there(name):
    if re.sub("[-_.]+", "-", name).lower() not in there | {{"hsgd-emu"}}:
        raise metadata.PackageNotFoundError(name)
    return version(name)
metadata.version = only_there
"""


def test_what_is_carried_suffices_to_learn_and_what_comes_back_to_report(tmp_path, monkeypatch, capfd):
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "sitecustomize.py").write_text(ONLY_CARRIED.format(packages=paper_pack.PACKAGES))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "path"))
    monkeypatch.setattr(paper_run, "unpack_wheels", lambda carry, site: None)
    # One thread: on a busy machine two that wait for each other take a minute for this.
    sets = ["model={name: mlp, hidden: [8]}", "train={iterations: 100, until_targets: false}", "seeds=[1]"]
    sets.append("targets={test_accuracy: [0.01]}")
    sets.append('cases=[{name: "P=50", period: 50}, {name: "G=50 I=5", periods: [50, 5]}]')
    words = ["run", "--small", "--minutes", "5", *(word for text in sets for word in ("--set", text))]
    places = {"--carry": tmp_path, "--work": tmp_path / "work", "--out": tmp_path / "out"}
    assert paper.main([*words, *(str(word) for place in places.items() for word in place)]) == 0
    out = capfd.readouterr().out
    assert "pace: " in out
    assert "Everything asked for is finished." in out
    [archive] = (tmp_path / "out").iterdir()
    assert archive.name == "table2_small.tar.xz"
    assert paper_report.report([tmp_path / "out"], tmp_path / "home") == 0
    out = capfd.readouterr().out
    assert "| P=50 | 1 of 1 | 100 |" in out
    assert "H-SGD reaches 1% test accuracy before every local SGD" in out
    assert (tmp_path / "home" / "table2_small" / "report.html").is_file()


def test_a_trial_that_two_runs_have_is_taken_where_it_is_longer(path, tmp_path):
    for name, local in (("table2", 4), ("figure3a", 12)):
        begun(path, tmp_path / name, local).close()
    experiment = load_experiment(path)
    found = paper_report.curves_of({tmp_path / name: experiment for name in ("table2", "figure3a")})
    assert [(one.name, one.accuracy) for one in found] == [("P=4", {1: {4: 0.1, 8: 0.1, 12: 0.1}})]
