"""Which keys of `train` do not go together: those of the run, of a case, and of a case over the run's."""

from __future__ import annotations

from collections.abc import Iterator

from hsgd_emu.config.load import RunDraft
from hsgd_emu.config.reader import Path_
from hsgd_emu.config.run_schema import TrainSpec, is_adam, train_of


def check_train_keys(draft: RunDraft) -> None:
    """Add what is wrong to the draft's problems."""
    train = draft.sections["train"]
    if train is None:
        return
    own: list[tuple[Path_, set[str], TrainSpec]] = []
    for number, case in enumerate(draft.cases):
        if case is not None:
            given = {key for key, value in case.train or () if value is not None}
            own.append((("cases", number, "train"), given, train_of(train, case)))
    for path, given, merged in own:
        for key, text in _mistakes(merged, given):
            at = (*path, key) if key in given else ("train", key)
            problem = draft.source.problem(at, text)
            if problem not in draft.problems:
                draft.problems.append(problem)
    if own and not any(is_adam(merged) for _, _, merged in own):
        draft.problems += [draft.source.problem(("train", key), _of_adam(key, train)) for key in _moments(train)]


def _mistakes(merged: TrainSpec, given: set[str]) -> Iterator[tuple[str, str]]:
    """Yield key and text of what is wrong with a case's training; given: the keys that the case says itself."""
    if is_adam(merged) and merged.momentum:
        key = "momentum" if "momentum" in given or "optimizer" not in given else "optimizer"
        word, value = merged.optimizer, merged.momentum
        found = (
            f"found {value:g} with optimizer {word}" if key == "momentum" else f"found {word} with momentum {value:g}"
        )
        yield key, f"{found}; momentum is of sgd, {word} has betas; momentum: 0 would do, or optimizer: sgd"
    if not is_adam(merged):
        yield from ((key, _of_adam(key, merged)) for key in _moments(merged) if key in given)


def _moments(train: TrainSpec) -> list[str]:
    return [key for key in ("betas", "epsilon") if getattr(train, key) is not None]


def _of_adam(key: str, train: TrainSpec) -> str:
    here = f"the optimizer here is {train.optimizer or 'sgd'}"
    return f"is of the optimizers adam and adamw, and {here}; give optimizer: adam, or leave {key} out"
