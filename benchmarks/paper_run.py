"""One command's worth of the paper's runs: unpack what is missing, learn until the time is over, copy results out.

Everything stays in the work folder, checkpoints too (531 MB each for VGG-11): a further command on the same machine
goes on exactly there. What is copied out are the run folders without checkpoints, one small archive each: on another
machine finished trials are kept from them, and unfinished ones begin anew. Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from paper_pack import DATASET, MIB, REPOSITORY, PaperError, packed_images, unpack_images, unpack_wheels
from paper_plan import Part

SOFT_S, HARD_S = 25.0, 12.0
"""Before the limit: when the trial at work is to stop, and when it is ended anyhow. The rest is for copying."""
COPY_EVERY_S = 60.0
ENDING = ".tar.xz"
RESULTS = ("run.yaml", "environment.json")
DONE, NOT_DONE = 0, 3
"""Exit codes of the process that learns: all is finished; the time was over."""
VERDICTS = {DONE: "Everything asked for is finished.", NOT_DONE: "The time was over: the same command goes on."}
MOST_BYTES, MOST_FILE_BYTES = 64 * MIB, 16 * MIB


@dataclass(frozen=True)
class Job:
    """What `paper.py run` was asked for. seed_from: folders of earlier results; out: None copies nothing."""

    carry: Path
    work: Path
    out: Path | None
    minutes: float
    device: str
    parts: Sequence[Part]
    seed_from: Sequence[Path] = ()

    @property
    def images(self) -> Path | None:
        """Where the images are unpacked to, or None where none are carried."""
        return self.work / "data" / DATASET if packed_images(self.carry) else None


def run(job: Job, begun_s: float) -> int:
    """Run a job and return the exit code; begun_s: when the command began, of `time.time()`.

    0: everything is finished, or the time was over; 1: the learning failed; 2: bad input; 130: interrupted.
    """
    if job.minutes * 60 <= 1.5 * SOFT_S:
        raise PaperError(f"--minutes {job.minutes:g}: {SOFT_S:g} s go to stopping and copying; give at least 0.7")
    limit_s = begun_s + 60 * job.minutes
    job.work.mkdir(parents=True, exist_ok=True)
    unpack_wheels(job.carry, job.work / "site")
    with tempfile.TemporaryDirectory() as place:
        for folder in returned(job.seed_from, Path(place)):
            target = job.work / "runs" / folder.name
            if seed(folder, target):
                print(f"{target.name}: goes on from earlier results, {progress(target)[0]} trials finished", flush=True)
    copies = Copies(job)
    try:
        with _learning(job, limit_s - SOFT_S) as process:
            was_ended = _watch_over(process, job, limit_s - HARD_S, copies)
    finally:
        copies.copy()
    code = NOT_DONE if was_ended else process.returncode
    print("\n".join([*copies.lines(), VERDICTS.get(code, f"The learning failed, exit code {code}.")]), flush=True)
    return code if code in (2, 130) else 0 if code in VERDICTS else 1


# --- learning ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def _learning(job: Job, end_s: float) -> Iterator[subprocess.Popen[bytes]]:
    """Start the process that learns; it is gone when the block is left, however that happens."""
    asked = {
        "parts": [[part.name, part.sets] for part in job.parts],
        "work": str(job.work),
        "device": job.device,
        "end_s": end_s,
        "images": str(job.images) if job.images else None,
    }
    script = Path(__file__).with_name("paper.py")
    process = subprocess.Popen([sys.executable, str(script), "learn", json.dumps(asked)], env=environment(job.work))
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def environment(work: Path) -> dict[str, str]:
    """Return the variables of the process that learns: everything it looks for or remembers is below `work`."""
    paths = [str(work / "site"), str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
    found = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in paths if path), "PYTHONUNBUFFERED": "1"}
    found |= {"HSGD_EMU_DATA": str(work / "data"), "XDG_CACHE_HOME": str(work / "cache")}
    return found | {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "PYTHONDONTWRITEBYTECODE": "1"}


def _watch_over(process: subprocess.Popen[bytes], job: Job, hard_s: float, copies: Copies) -> bool:
    """Unpack the images while the process starts, copy results out now and then; return True at the hard limit."""
    unpacking = Unpacking(packed_images(job.carry), job.images)
    copied_s = time.time()
    while process.poll() is None:
        unpacking.check()
        if time.time() >= hard_s:
            print("the time is over: ended, what came after the last checkpoint is lost", flush=True)
            return True
        if time.time() - copied_s >= COPY_EVERY_S:
            copies.copy()
            copied_s = time.time()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.2)
    return False


class Unpacking:
    """The images, unpacked by a thread beside all else."""

    def __init__(self, archive: Path | None, folder: Path | None) -> None:
        self.error: BaseException | None = None
        if archive is not None and folder is not None:
            folder.parent.mkdir(parents=True, exist_ok=True)
            threading.Thread(target=self._unpack, args=(archive, folder), daemon=True).start()

    def _unpack(self, archive: Path, folder: Path) -> None:
        try:
            unpack_images(archive, folder)
        except BaseException as error:
            self.error = error

    def check(self) -> None:
        """Raise what went wrong, if anything did."""
        if self.error is not None:
            raise PaperError(f"the images could not be unpacked: {self.error}")


def on_terminate(number: int, frame: FrameType | None) -> None:
    """Let SIGTERM end the command as Ctrl-C does: what is there is copied out by the block that is left."""
    raise KeyboardInterrupt


# --- copying out ------------------------------------------------------------------------------------


class Copies:
    """The archives in the out folder; only what has changed is written again."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._seen: dict[str, tuple[int, ...]] = {}

    def copy(self) -> None:
        """Bring the archives up to date; each is there whole, whenever the process is killed."""
        if self.job.out is None:
            return
        self.job.out.mkdir(parents=True, exist_ok=True)
        for part in self.job.parts:
            folder = self.job.work / "runs" / part.name
            seen = _state(folder)
            if seen and seen != self._seen.get(part.name):
                pack_results(folder, self.job.out / f"{part.name}{ENDING}", self.job.work)
                self._seen[part.name] = seen

    def lines(self) -> list[str]:
        """Return what was copied out, and what is too large to come back."""
        if self.job.out is None:
            return []
        sizes = {path.name: path.stat().st_size for path in sorted(self.job.out.glob(f"*{ENDING}"))}
        lines = [f"{name}: {size / MIB:.2f} MiB" for name, size in sizes.items()]
        lines += [f"{name} is over {MOST_FILE_BYTES // MIB} MiB" for name, s in sizes.items() if s > MOST_FILE_BYTES]
        return lines + ([f"all are over {MOST_BYTES // MIB} MiB"] if sum(sizes.values()) > MOST_BYTES else [])


def _state(folder: Path) -> tuple[int, ...]:
    """Return what changes whenever a round is written; nothing where there is no run."""
    if not (folder / "run.sqlite").is_file():
        return ()
    files = [path for path in (folder / "run.sqlite", folder / "run.sqlite-wal") if path.is_file()]
    return tuple(number for path in files for number in (path.stat().st_size, path.stat().st_mtime_ns))


def pack_results(folder: Path, archive: Path, work: Path) -> None:
    """Write a run folder without checkpoints as an archive, also while the run is being written."""
    with tempfile.TemporaryDirectory(dir=work) as place:
        database = Path(place) / "run.sqlite"
        copy_database(folder / "run.sqlite", database)
        beside = Path(place) / archive.name
        with tarfile.open(beside, "w:xz", preset=1) as file:
            for name in RESULTS:
                file.add(folder / name, f"{folder.name}/{name}")
            file.add(database, f"{folder.name}/run.sqlite")
        # The place of the archive may be another file system.
        shutil.copyfile(beside, archive.with_name(f".{archive.name}"))
        os.replace(archive.with_name(f".{archive.name}"), archive)


def copy_database(source: Path, target: Path) -> None:
    """Copy a database as it is at one moment, what is in its write-ahead log too, into one file."""
    with (
        contextlib.closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as one,
        contextlib.closing(sqlite3.connect(target)) as other,
    ):
        one.backup(other)
        other.execute("PRAGMA journal_mode = DELETE")


# --- results that came back -------------------------------------------------------------------------


def returned(places: Sequence[Path], into: Path) -> list[Path]:
    """Return the run folders in some places, one of each name: the one that is furthest. Archives are unpacked `into`.

    A place is a run folder, an archive, or a folder that holds such, at any depth.
    Raises:  PaperError: a place holds none.
    """
    best: dict[str, Path] = {}
    for number, place in enumerate(places):
        found = list(_run_folders(place, into / str(number)))
        if not found:
            raise PaperError(f"{place}: holds no results; right would be a folder of *{ENDING} or of run folders")
        for folder in found:
            if folder.name not in best or progress(folder) > progress(best[folder.name]):
                best[folder.name] = folder
    return [best[name] for name in sorted(best)]


def _run_folders(place: Path, into: Path) -> Iterator[Path]:
    archives = [place] if place.is_file() else sorted(place.rglob(f"*{ENDING}"))
    for number, archive in enumerate(archives):
        try:
            with tarfile.open(archive) as file:
                file.extractall(into / str(number), filter="data")
        except (tarfile.TarError, EOFError, OSError) as error:
            raise PaperError(f"{archive}: cannot be unpacked ({error})") from None
    for top in (place, into):
        yield from (database.parent for database in sorted(top.rglob("run.sqlite")))


def progress(folder: Path) -> tuple[int, int]:
    """Return how far a run is: finished trials, then iterations of all."""
    with contextlib.closing(sqlite3.connect(f"{(folder / 'run.sqlite').absolute().as_uri()}?mode=ro", uri=True)) as db:
        query = "SELECT coalesce(sum(status = 'finished'), 0), coalesce(sum(iteration), 0) FROM trials"
        finished, iterations = db.execute(query).fetchone()
    return int(finished), int(iterations)


def seed(folder: Path, target: Path) -> bool:
    """Put a run that came back to where it can go on; return False where one is already, which is at least as far."""
    if (target / "run.sqlite").is_file():
        return False
    target.mkdir(parents=True, exist_ok=True)
    for name in RESULTS:
        shutil.copyfile(folder / name, target / name)
    copy_database(folder / "run.sqlite", target / "run.sqlite.seed")
    os.replace(target / "run.sqlite.seed", target / "run.sqlite")
    return True
