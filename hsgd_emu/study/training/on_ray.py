"""Trials learned on a Ray cluster: one task each, in a folder of its node, which comes back to the library whole.

Ray is an optional dependency (hsgd-emu[ray]). Every node needs this package, and the data where the run file or
HSGD_EMU_DATA say; that they are the same there is checked, for otherwise the results would differ without a word.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import socket
import time
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hsgd_emu.errors import ConfigError, Problem, RunError, listed
from hsgd_emu.results.folder import LOCK_FILE
from hsgd_emu.spawning import portable
from hsgd_emu.study.training.executors import MOST_DEATHS, TrainingProgress
from hsgd_emu.study.training.library import Library, learn
from hsgd_emu.study.training.wanted import Wanted
from hsgd_emu.trials import Progress

Files = dict[str, bytes]
"""A run folder's files, by path below it."""
_AT_ONCE = 200  # as many trials wait on the cluster at most; each holds a lock and its partial folder


def train_on_ray(
    missing: Sequence[Wanted], library: Library, jobs: int | None, progress: TrainingProgress, address: str | None
) -> None:
    """Learn trials on a cluster; see `executors.train`. The trials of a lost node are learned again on others."""
    with _cluster(address) as ray:
        task, at_once = _task(ray, missing, jobs)
        waiting = deque(missing)
        sent: dict[Any, tuple[Wanted, int]] = {}
        try:
            while waiting or sent:
                for _ in range(min(len(waiting), at_once - len(sent))):
                    _send(waiting, library, progress, task, sent)
                if not sent:  # other studies learn all that is left just now
                    time.sleep(0.1)
                    continue
                for ref in ray.wait(list(sent), timeout=1)[0]:
                    wanted, lock = sent.pop(ref)
                    try:
                        _take_in(wanted, library, _result(ray, ref, wanted))
                    finally:
                        os.close(lock)
                    progress.end(wanted)
        finally:
            for ref, (_, lock) in sent.items():
                # Not by force: Ray 2.60 aborts this process when a task that is cancelled so ends just then.
                ray.cancel(ref)
                os.close(lock)


@contextlib.contextmanager
def _cluster(address: str | None) -> Iterator[Any]:
    """Yield the module ray, connected to the cluster that this process uses already, else to the one at `address`.

    Raises:  ConfigError: ray is not installed, or there is no cluster.
    """
    try:
        import ray
    except ImportError:
        text = "needs Ray, which is not installed here: pip install 'hsgd-emu[ray]'"
        raise ConfigError.of("--executor ray", "", text) from None
    if ray.is_initialized():
        yield ray
        return
    where = address or os.environ.get("RAY_ADDRESS") or "auto"
    try:
        _call(where)
        ray.init(where, logging_level=logging.ERROR, log_to_driver=False)
    except Exception as error:  # Ray's kinds of errors differ with what is wrong
        why = " ".join(str(error).split())
        text = f"no Ray cluster at '{where}'; start one with `ray start --head`, or name it with --ray-address ({why})"
        raise ConfigError.of("--executor ray", "", text) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _call(where: str) -> None:
    """Raise OSError where nobody answers: Ray itself would try for minutes, and then end this process."""
    from ray._private import services

    look_up = getattr(services, "canonicalize_bootstrap_address_or_die", None)
    found = where if look_up is None or "://" in where else look_up(where)
    host, _, port = found.rpartition(":")
    if host and port.isdecimal() and "://" not in found:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()


def _task(ray: Any, missing: Sequence[Wanted], jobs: int | None) -> tuple[Any, int]:
    """Return the remote function, and how many of it may be under way at once."""
    needs: dict[str, Any] = {"num_cpus": 1, "max_retries": MOST_DEATHS}
    at_once = min(_AT_ONCE, jobs or _AT_ONCE)
    if any(one.resources.device == "cuda" for one in missing):
        needs["num_gpus"], at_once = 1 / (jobs or 1), _AT_ONCE
    kind = "GPU" if "num_gpus" in needs else "CPU"
    if not ray.cluster_resources().get(kind):
        raise ConfigError.of("--executor ray", "", f"the cluster has no {kind}s")
    return ray.remote(**needs)(_learn_there), at_once


def _send(
    waiting: deque[Wanted],
    library: Library,
    progress: TrainingProgress,
    task: Any,
    sent: dict[Any, tuple[Wanted, int]],
) -> None:
    """Send the next trial to the cluster; one that another study learns just now goes to the end of the queue."""
    wanted = waiting.popleft()
    lock = library.try_lock(wanted)
    if lock is None:
        waiting.append(wanted)
        return
    if library.find(wanted) is not None:
        os.close(lock)
        return
    known = library.progress_of(wanted)
    progress.begin(wanted, known.iteration if known else 0)
    partial = pack(library.folder_of(wanted)) if known else {}
    sent[task.remote(wanted, partial, os.environ.get("HSGD_EMU_DATA"))] = wanted, lock


def _result(ray: Any, ref: Any, wanted: Wanted) -> Files:
    """Return the files of a trial that was learned.

    Raises:  what went wrong while it was; RunError: what went wrong in the cluster.
    """
    try:
        found = ray.get(ref)
    except ray.exceptions.RayError as error:
        why = str(error).strip().splitlines()[-1:]
        if "No module named 'hsgd_emu" in str(error):
            text = "hsgd-emu is not installed on every node of the cluster"
            raise ConfigError.of("--executor ray", "", text) from None
        raise RunError(f"{wanted.label}: could not be learned on the cluster: {listed(why)}") from error
    if isinstance(found, BaseException):
        raise found
    files: Files = found
    return files


def _take_in(wanted: Wanted, library: Library, files: Files) -> None:
    """Put a trial's folder into the library, whole, in the place of what was there."""
    folder = library.folder_of(wanted)
    mark = uuid.uuid4().hex
    beside, old = (library.folder / "incoming" / f"{wanted.key}-{mark}-{name}" for name in ("new", "old"))
    unpack(files, beside)
    if folder.exists():
        os.rename(folder, old)
    os.rename(beside, folder)
    shutil.rmtree(old, ignore_errors=True)
    library.remember(wanted)


def pack(folder: Path) -> Files:
    """Return the files of a run folder that nobody writes, as far as a run needs them to go on."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [str(path.relative_to(folder)) for path in paths]
    wanted = [name for name in names if name != LOCK_FILE and not name.endswith("-shm")]
    return {name: (folder / name).read_bytes() for name in wanted}


def unpack(files: Files, folder: Path) -> None:
    """Write the files of a run folder."""
    folder.mkdir(parents=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


# --- on the node --------------------------------------------------------------------------------------------


def _learn_there(wanted: Wanted, partial: Files, data_root: str | None) -> Files | Exception:
    """Learn a trial on this node, going on from `partial`, and return its folder, or what went wrong."""
    if data_root is not None:
        os.environ.setdefault("HSGD_EMU_DATA", data_root)
    try:
        with TemporaryDirectory() as temporary:
            folder = Path(temporary) / wanted.key
            if partial:
                unpack(partial, folder)
            _check_device(wanted)
            learn(wanted, folder, Progress())
            return pack(folder)
    except ConfigError as error:
        here = f"node {socket.gethostname()}"
        return ConfigError(
            Problem(f"{here}, {p.where}" if p.where else here, p.field, p.message) for p in error.problems
        )
    except Exception as error:
        return portable(error, wanted.label)


def _check_device(wanted: Wanted) -> None:
    """Raise ConfigError where this machine has another device than the trial's key covers."""
    from hsgd_emu.learning import world as worlds

    here, there = worlds.device_name(worlds.choose_device(wanted.resources.device)), wanted.resources.device_name
    if here != there:
        raise ConfigError.of("", "", f"is not like where the study was started: device is {here} and not {there}")
