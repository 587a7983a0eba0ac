"""A trial that goes on from a checkpoint cannot be told from one that was never interrupted."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from hsgd_emu.learning import checkpoint
from hsgd_emu.learning.checkpoint import Checkpoints as CheckpointsOf
from hsgd_emu.learning.models import mlp

from .twins import Notes, Trial, synthetic


def with_everything():
    layers = (nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 4))
    return nn.Sequential(*layers)


KINDS = {
    "plain": (partial(mlp, (6,), (8,), 4), {}),
    "momentum": (partial(mlp, (6,), (8,), 4), {"momentum": 0.9}),
    "momentum_reset": (partial(mlp, (6,), (8,), 4), {"momentum": 0.9, "state": "reset"}),
    "momentum_average": (partial(mlp, (6,), (8,), 4), {"momentum": 0.9, "state": "average"}),
    "adam": (partial(mlp, (6,), (8,), 4), {"optimizer": "adam", "learning_rate": 0.01}),
    "adamw_average": (partial(mlp, (6,), (8,), 4), {"optimizer": "adamw", "learning_rate": 0.01, "state": "average"}),
    "clipped_squared": (partial(mlp, (6,), (8,), 4), {"loss": "squared", "clip_norm": 0.1, "proximal": 1.0}),
    "batch_norm_dropout_float32": (with_everything, {"momentum": 0.9, "dtype": "float32"}),
}


@pytest.mark.parametrize("way", ["layered", "vmap", "one_by_one"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("evaluate_every", [4, 8])
def test_restored_learner_goes_on_bit_for_bit(kind, way, evaluate_every, tmp_path):
    # Twelve iterations in rounds of four; with a row every eight, the checkpoint after the first round holds half
    # of the losses of the next row.
    make, train = KINDS[kind]
    trial = Trial(make, synthetic((6,)), iterations=12, **train)
    whole = trial.stacked(way)
    expected = trial.run(whole, evaluate_every=evaluate_every)
    half = trial.stacked(way)
    found = trial.run(half, end=4, evaluate_every=evaluate_every)
    checkpoints = Checkpoints(tmp_path / "checkpoints", 0)
    checkpoints.save(4, half.state())
    assert len(half.state()["versions"]) == 1  # the global model alone
    resumed = trial.stacked(way)
    resumed.restore(checkpoints.load(4))
    found += trial.run(resumed, begin=4, evaluate_every=evaluate_every)
    assert found == expected
    assert resumed.weights_hash(trial.root) == whole.weights_hash(trial.root)
    for node in trial.setup.slots:
        assert_same(resumed.model_of(node), whole.model_of(node))
    assert_same(resumed.stacks.kept, whole.stacks.kept)


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_restoring_forgets_what_was_asked_before():
    trial = Trial(KINDS["momentum"][0], synthetic((6,)), momentum=0.9)
    learner = trial.stacked()
    state, before = learner.state(), learner.weights_hash(trial.root)
    learner.local_steps(0, 0, 2)
    learner.restore(state)
    assert learner.weights_hash(trial.root) == before
    assert learner.losses.sums == learner.losses.counts == {}


def test_state_is_a_copy():
    trial = Trial(KINDS["plain"][0], synthetic((6,)))
    learner = trial.stacked()
    state = learner.state()
    (stored,) = state["versions"].values()
    before = stored["1.weight"].clone()
    trial.run(learner)
    assert torch.equal(stored["1.weight"], before)
    assert not torch.equal(learner.stacks.trained["1.weight"][trial.root], before)


def test_weights_hash_tells_models_apart():
    trial = Trial(KINDS["plain"][0], synthetic((6,)))
    learner = trial.stacked()
    before = learner.weights_hash(trial.root)
    assert before == trial.stacked().weights_hash(trial.root)
    learner.stacks.trained["1.weight"][len(trial.setup.worker_names), 0, -1] += 1e-12  # where all begin
    assert learner.weights_hash(trial.root) != before


@pytest.fixture(autouse=True)
def notes():
    """Hashes outlive the object that writes checkpoints, as in a run's database: one ledger for each trial."""
    LEDGERS.clear()


LEDGERS = {}


def Checkpoints(folder, trial):
    return CheckpointsOf(folder, trial, LEDGERS.setdefault(trial, Notes()))


def save(checkpoints: Checkpoints, round_: int) -> None:
    checkpoints.save(10 * round_, {"row": torch.full((3,), float(round_))})


def test_the_last_two_checkpoints_are_kept_and_the_newest_that_is_old_enough_is_used(tmp_path):
    # A round may be newer than what the database names: the kill came between the two writes.
    checkpoints = Checkpoints(tmp_path, 5)
    for round_ in (1, 2, 4):
        save(checkpoints, round_)
    found = {iteration: checkpoints.load(iteration) for iteration in (10, 20, 30, 40, 50)}
    assert found[10] is None
    rounds = [found[iteration]["row"].tolist()[0] for iteration in (20, 30, 40, 50)]
    assert rounds == [2, 2, 4, 4]


def test_after_a_resume_the_checkpoint_in_use_is_not_the_one_overwritten(tmp_path):
    first = Checkpoints(tmp_path, 5)
    for round_ in (1, 2):
        save(first, round_)
    resumed = Checkpoints(tmp_path, 5)
    assert resumed.load(10)["iteration"] == 10  # the second was never committed
    save(resumed, 3)
    assert Checkpoints(tmp_path, 5).load(20)["iteration"] == 10


def test_writing_takes_a_small_part_of_the_time(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(checkpoint.time, "perf_counter", lambda: clock[0])
    checkpoints = Checkpoints(tmp_path, 5)
    assert checkpoints.is_due()
    monkeypatch.setattr(checkpoint.torch, "save", lambda state, path: (path.write(b""), clock.append(clock.pop() + 1)))
    save(checkpoints, 1)  # takes one second
    clock[0] = 20.5
    assert not checkpoints.is_due()
    clock[0] = 21.5
    assert checkpoints.is_due()


def test_torn_and_missing_files_are_not_used(tmp_path):
    checkpoints = Checkpoints(tmp_path, 0)
    assert checkpoints.load(10) is None
    save(checkpoints, 1)
    save(checkpoints, 2)
    torn = tmp_path / "0-1.pt"
    torn.write_bytes(torn.read_bytes()[:-100])
    assert checkpoints.load(20)["iteration"] == 10
    assert checkpoints.damaged == [torn]
    (tmp_path / "0-0.pt").unlink()
    assert checkpoints.load(20) is None


def test_what_a_kill_leaves_half_written_harms_nothing(tmp_path):
    checkpoints = Checkpoints(tmp_path, 0)
    save(checkpoints, 1)
    (tmp_path / ".hsgd-emu-0123.new").write_bytes(b"half")
    assert checkpoints.load(10) is not None
    save(checkpoints, 2)
    assert checkpoints.load(20) is not None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0-0.pt", "0-1.pt"]


def flip_a_bit(content: bytearray, *_) -> None:
    content[len(content) // 2] ^= 64


def zero_a_page(content: bytearray, *_) -> None:
    content[256:4352] = bytes(len(content[256:4352]))


def cut(content: bytearray, *_) -> None:
    del content[-1:]


def empty(content: bytearray, *_) -> None:
    content.clear()


def exchange_for_another_trials(content: bytearray, other: bytes, older: bytes) -> None:
    content[:] = other


def exchange_for_an_older_one(content: bytearray, other: bytes, older: bytes) -> None:
    content[:] = older


@pytest.mark.parametrize(
    "harm", [flip_a_bit, zero_a_page, cut, empty, exchange_for_another_trials, exchange_for_an_older_one]
)
def test_a_file_that_is_not_what_was_written_is_never_used_and_told(tmp_path, harm):
    # Values large enough for a bit in them to be flipped: torch itself checks none of them.
    checkpoints, another = Checkpoints(tmp_path, 0), Checkpoints(tmp_path, 1)
    for round_ in (1, 2, 3, 4, 5):
        checkpoints.save(10 * round_, {"row": torch.full((2000,), float(round_))})
        another.save(10 * round_, {"row": torch.full((2000,), -float(round_))})
        if round_ == 1:
            older = (tmp_path / "0-0.pt").read_bytes()
    newest = tmp_path / "0-0.pt"
    content = bytearray(newest.read_bytes())
    harm(content, (tmp_path / "1-0.pt").read_bytes(), older)
    newest.write_bytes(content)
    # A ledger in a database keeps the last three.
    for sha256, iteration in list(checkpoints.ledger.items()):
        if iteration < 30:
            del checkpoints.ledger[sha256]
    found = Checkpoints(tmp_path, 0)
    state = found.load(50)
    assert state["iteration"] == 40
    assert (state["row"] == 4).all()
    assert found.damaged == [newest]
    found.save(50, {"row": torch.ones(1)})  # in the place of the damaged one
    assert Checkpoints(tmp_path, 0).load(50)["iteration"] == 50


def test_a_kill_after_the_hash_is_noted_is_no_damage(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path, 0)
    for round_ in (1, 2):
        save(checkpoints, round_)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("hsgd_emu.atomic.os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        save(checkpoints, 3)
    again = Checkpoints(tmp_path, 0)
    assert again.load(30)["iteration"] == 20
    assert again.damaged == []


def test_nothing_is_written_or_read_through_a_link(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "checkpoints").symlink_to(elsewhere)
    with pytest.raises(NotADirectoryError):
        save(Checkpoints(tmp_path / "checkpoints", 0), 1)
    assert list(elsewhere.iterdir()) == []
    checkpoints = Checkpoints(tmp_path / "own", 0)
    save(checkpoints, 1)
    (tmp_path / "own" / "0-0.pt").rename(tmp_path / "moved")
    (tmp_path / "own" / "0-0.pt").symlink_to(tmp_path / "moved")
    assert checkpoints.load(10) is None
    before = (tmp_path / "moved").read_bytes()
    save(checkpoints, 2)
    save(checkpoints, 3)
    assert (tmp_path / "moved").read_bytes() == before


def test_trials_do_not_share_files_and_remove_their_own(tmp_path):
    one, other = Checkpoints(tmp_path, 1), Checkpoints(tmp_path, 11)
    save(one, 1)
    save(other, 1)
    one.remove()
    one.remove()
    assert one.load(10) is None
    assert other.load(10) is not None
