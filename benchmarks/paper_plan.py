"""Which runs make the paper's figures, in the order of importance, and how many of their trials fit into the time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from paper_pack import REPOSITORY, PaperError

_ONE_SEED = {"seeds": "[1]"}
_NOT_IN_FIGURE3A = {"cases": '[{name: "G=200 I=2", periods: [200, 2]}]'}


@dataclass(frozen=True)
class Part:
    """One run file of runs/paper/, and what is set in it."""

    name: str
    sets: dict[str, str]

    @property
    def file(self) -> Path:
        return REPOSITORY / "runs" / "paper" / f"{self.name}.yaml"

    def assignments(self) -> list[str]:
        """Return what is set as `--set` takes it."""
        return [f"{key}={value}" for key, value in self.sets.items()]


PARTS = (
    Part("table2", {}),
    Part("figure3a", _ONE_SEED),
    # Trials depend on the seed and not on the run: figure 3b's other two cases are figure 3a's to the bit.
    Part("figure3b", _ONE_SEED | _NOT_IN_FIGURE3A),
    Part("figure3a_five_groups", _ONE_SEED),
    Part("figure3c", _ONE_SEED),
    # Last: with ten workers and ten classes these are figure 3a's H-SGD once more.
    Part("figure3c_group_non_iid", _ONE_SEED),
)
"""Trials go case by case and seed by seed within a part, so what matters most is done first."""
SMALL = (Part("table2_small", {"seeds": "[1, 2]", "train.iterations": "500"}),)
MADE_UP = {"channels": 3, "size": 32, "num_classes": 10, "num_train": 2000, "num_test": 500}


def parts_of(only: Sequence[str], small: bool, sets: Sequence[str] = (), made_up: bool = False) -> list[Part]:
    """Return the parts to run; sets: for all of them, instead of what a part sets itself; made_up: without images.

    Raises:  PaperError: one has no such name, or is none of KEY=VALUE.
    """
    known = {part.name: part for part in (SMALL if small else PARTS)}
    for name in only:
        if name not in known:
            raise PaperError(f"--only {name}: there is no such part; there are {', '.join(known)}")
    given = dict(_assignment(text) for text in sets)
    if made_up:
        options = ", ".join(f"{key}: {value}" for key, value in MADE_UP.items())
        data = f"dataset: 'synthetic:images', partition: by_label, options: {{{options}}}"
        given = {"data": f"{{{data}, augment: {{crop: 4, flip: true}}}}"} | given
    return [Part(part.name, part.sets | given) for part in known.values() if part.name in only or not only]


def _assignment(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise PaperError(f"--set {text}: expected KEY=VALUE, as in train.iterations=2000")
    return key, value


# --- how long ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pace:
    """What one iteration of all workers and one evaluation cost this machine."""

    iteration_s: float
    evaluation_s: float

    def text(self) -> str:
        return f"{1000 * self.iteration_s:.2f} ms an iteration of all workers, {self.evaluation_s:.3f} s an evaluation"


@dataclass(frozen=True)
class Trial:
    """One case and seed of a part, and how much of it is left at most (a trial may end with its last target)."""

    part: str
    case: str
    seed: int
    iterations: int
    """Left; 0: it is finished."""
    global_period: int
    evaluate_every: int

    def most_s(self, pace: Pace) -> float:
        """Return the seconds it will still take at most."""
        evaluations = -(-self.iterations // max(self.global_period, self.evaluate_every))
        return self.iterations * pace.iteration_s + evaluations * pace.evaluation_s


def plan_lines(trials: Iterable[Trial], pace: Pace, left_s: float) -> list[str]:
    """Return for each part and seed how long it takes at most and when it is done; left_s: of this command."""
    rows: dict[tuple[str, int], list[Trial]] = {}
    for trial in trials:
        rows.setdefault((trial.part, trial.seed), []).append(trial)
    lines, done_s = [f"pace: {pace.text()}"], 0.0
    for (part, seed), group in rows.items():
        left = [trial for trial in group if trial.iterations]
        spent_s = sum(trial.most_s(pace) for trial in left)
        done_s += spent_s
        what = f"{part}, seed {seed}: {len(left)} of {len(group)} trials to do"
        if left:
            fits = "fits into this command" if done_s <= left_s else "needs a further command unless targets end it"
            what += f", at most {spent_s / 60:.1f} minutes, done after {done_s / 60:.1f}: {fits}"
        lines.append(what)
    return [*lines, f"all: at most {done_s / 60:.1f} minutes of training; this command has {left_s / 60:.1f} left"]
