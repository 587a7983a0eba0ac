"""Learn the trials that a study lacks: in processes of this machine, or on a Ray cluster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from hsgd_emu.errors import ConfigError, RunError
from hsgd_emu.spawning import num_cores
from hsgd_emu.study.training.estimate import estimate_wall_s
from hsgd_emu.study.training.library import Learned, Library
from hsgd_emu.study.training.processes import Crew, Reached, TrainingProgress, train_here
from hsgd_emu.study.training.wanted import Wanted

__all__ = ["Crew", "ExecutorName", "Reached", "TrainingProgress", "default_jobs", "estimate_wall_s", "train"]

ExecutorName = Literal["local", "ray"]


def train(
    wanted: Sequence[Wanted],
    library: Library,
    executor: ExecutorName = "local",
    jobs: int | None = None,
    progress: TrainingProgress | None = None,
    ray_address: str | None = None,
    crew: Crew | None = None,
) -> dict[str, Learned]:
    """Learn what is wanted and not yet in the library, and return all of it by key.

    A killed study goes on where it was: what is finished is not learned again, what was begun is continued. Of two
    studies that want the same trial at once, one learns it and the other waits.

    Args:    jobs: trials at a time (default: one for each core that this process may use, on CUDA one; on Ray as many
             as the cluster takes, and on CUDA this many share a GPU).
             ray_address: of the cluster (default: RAY_ADDRESS, else the one on this machine).
             crew: processes of this machine to be used again, for those who come back.
    Raises:  ConfigError: data or model do not fit, no Ray cluster; RunError: a trial's process dies again and again.
    """
    if jobs is not None and jobs < 1:
        raise ConfigError.of(f"--jobs {jobs}", "", "at least one trial is learned at a time")
    progress = progress or TrainingProgress()
    furthest: dict[str, Wanted] = {}
    for one in wanted:
        known = furthest.get(one.key)
        furthest[one.key] = one if known is None or known.until < one.until else known
    found = {key: library.find(one) for key, one in furthest.items()}
    missing = [one for key, one in furthest.items() if found[key] is None]
    if missing and executor == "ray":
        from hsgd_emu.study.training.on_ray import train_on_ray

        train_on_ray(missing, library, jobs, progress, ray_address)
    elif missing:
        train_here(missing, library, jobs or default_jobs(missing), progress, crew)
    return {key: _learned(one, library, found[key]) for key, one in furthest.items()}


def default_jobs(wanted: Sequence[Wanted]) -> int:
    """Return how many trials this machine learns at a time: one for each core, one where there is a GPU."""
    return 1 if any(one.resources.device == "cuda" for one in wanted) else num_cores()


def _learned(wanted: Wanted, library: Library, found: Learned | None) -> Learned:
    learned = found or library.find(wanted)
    if learned is None:
        raise RunError(f"{library.folder_of(wanted)}: {wanted.label} was learned and is not there; removed meanwhile?")
    return learned
