"""Whether a change of the code changed a bit of any result: two source trees do the same works, and all is compared.

    python benchmarks/same_bits.py main .                             # a git revision against a folder
    python benchmarks/same_bits.py main . --works demo study          # some works only
    python benchmarks/same_bits.py main --results base                # one tree: its results are kept,
    python benchmarks/same_bits.py . --before-results base            # and another one is compared with them later

Works (same_bits.yaml): every shipped run file (shortened; those that need data where HSGD_EMU_DATA has them), partial
participation, momentum with BatchNorm and dropout, runs that end at their targets, runs killed (kill -9) and resumed, a
study, a plan, and what is made of a finished run. Compared: all tables, weights and timeline hashes among them, the
resolved files, reports with the data of their figures, and what the commands print. Left out: the host's seconds and
facts, and the names under which a study files its trials (which trials are one is compared).

On one machine both trees give the same bits or the change is to blame; two machines may differ in a model's last bits.
Exit status 1: something differs. Everything stays readable in the folder of --results: `diff -r FOLDER/before ...`.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import re
import resource
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import zip_longest
from pathlib import Path
from string import Template
from typing import Any

import yaml

PARTS = ("hsgd_emu", "runs", "topologies", "latency_profiles")
GIVEN = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
LEARN: str = GIVEN["words"]["LEARN"]
WORKS: dict[str, list[str]] = GIVEN["works"]
KILLED: dict[str, str] = GIVEN["killed"]
ORDER = [*WORKS, *KILLED]
KILLED_AT = (0.15, 0.5, 0.85)
"""When: shares of the rows of the curves."""
KILL_TABLES = ("curve", "timeline", "targets", "trials", "barriers", "waits")


def copy_tree(tree: str, folder: Path, parts: Sequence[str]) -> None:
    """Copy parts of a folder, or of a git revision, into a new folder."""
    folder.mkdir()
    if Path(tree).is_dir():
        for part in parts:
            shutil.copytree(Path(tree) / part, folder / part, ignore=shutil.ignore_patterns("out", "__pycache__"))
        return
    packed = subprocess.run(["git", "archive", tree, *parts], stdout=subprocess.PIPE, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")


def words_of(command: str) -> list[str]:
    return shlex.split(Template(command).substitute(GIVEN["words"]))


class Side:
    """One source tree, copied (so that it may change meanwhile), and the results of its works."""

    def __init__(self, tree: str, folder: Path, results: Path) -> None:
        self.folder, self.results = folder, results
        self.masks: dict[str | None, str] = {str(folder): "FOLDER"}
        copy_tree(tree, folder, PARTS)
        for name, text in GIVEN["files"].items():
            (folder / name).write_text(text, encoding="utf-8")

    def do(self, work: str) -> None:
        """Do a work, and write down what it gave."""
        if work in KILLED:
            words = words_of(WORKS[KILLED[work]][0].replace("out/", "out/resumed_"))
            self._killed(words, self.results / KILLED[work] / "0" / "curve")
            self._keep(self._begin([*words, "--resume"]), words, self.results / work / "0")
            (self.results / work / "0" / "printed").unlink()
            return
        for number, command in enumerate(WORKS[work]):
            words = words_of(command)
            self._keep(self._begin(words), words, self.results / work / str(number))

    def _begin(self, words: list[str]) -> subprocess.Popen[str]:
        environment = os.environ | {"PYTHONPATH": str(self.folder), "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "hsgd_emu.cli", *words]
        where, printed = self.folder, subprocess.PIPE
        return subprocess.Popen(
            command, cwd=where, env=environment, text=True, stdout=printed, stderr=subprocess.STDOUT
        )

    def _killed(self, words: list[str], curve: Path) -> None:
        """Begin a run and go on with it, and kill it when there are so many rows of its curve."""
        num_rows = len(curve.read_text(encoding="utf-8").splitlines()) - 1
        for share in KILLED_AT:
            process = self._begin([*words, *(["--resume"] if share != KILLED_AT[0] else [])])
            while process.poll() is None and self._num_rows(words) < share * num_rows:
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            assert process.returncode == -signal.SIGKILL, f"too late to kill: {words}"

    def _num_rows(self, words: list[str]) -> int:
        database = self.folder / words[-1] / "run.sqlite"
        if not database.is_file():
            return 0
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            return int(connection.execute("SELECT count(*) FROM curve").fetchone()[0])

    def _keep(self, process: subprocess.Popen[str], words: list[str], place: Path) -> None:
        """Write down what a command printed, and what is in its folder."""
        place.mkdir(parents=True)
        printed = process.communicate()[0]
        (place / "printed").write_text(f"{self._masked(printed)}exit status {process.returncode}\n", encoding="utf-8")
        named = self.folder / (words[words.index("--out") + 1] if "--out" in words else "no folder")
        folder = named.parent if named.suffix else named
        told = folder / "environment.json"
        environment = json.loads(told.read_text(encoding="utf-8")) if told.is_file() else {}
        self.masks |= {environment.get("saw", {}).get("hsgd-emu's code"): "CODE", environment.get("commit"): "COMMIT"}
        for file in sorted(folder.glob("*.*")):
            if file.suffix == ".sqlite":
                for table, lines in tables(file):
                    (place / table).write_text("\n".join(lines) + "\n", encoding="utf-8")
                continue
            text = self._masked(file.read_text(encoding="utf-8"))
            form = {".html": page, ".csv": without_wall_s}.get(file.suffix, str)
            (place / file.name).write_text(form(text), encoding="utf-8")

    def _masked(self, text: str) -> str:
        """Return a text without what tells the trees apart."""
        for secret, mask in self.masks.items():
            text = text.replace(secret, mask) if secret else text
        return text


def tables(database: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield (name, lines) of the tables that are results: the columns, then the rows as they were written."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for name in sorted(set(names) - {"checkpoints", "parts"}):
            rows = connection.execute(f'SELECT * FROM "{name}" ORDER BY rowid')
            columns = [column[0] for column in rows.description]
            seen: dict[Any, int] = {}
            lines = [repr(columns)]
            for row in rows:
                said = dict(zip(columns, row, strict=True))
                said.pop("wall_s", None)
                if "trial" in said:
                    said["trial"] = seen.setdefault(said["trial"], len(seen))
                lines.append(repr(list(said.values())))
            yield name, lines


def without_wall_s(text: str) -> str:
    """Return a table of CSV without the seconds of the host."""
    rows = list(csv.reader(io.StringIO(text)))
    kept = [number for number, name in enumerate(rows[0]) if name != "wall_s"]
    return "".join(f"{[row[number] for number in kept]}\n" for row in rows)


def page(html: str) -> str:
    """Return a report without plotly.js and names of trials, the values in its figures on lines of their own."""
    html = re.sub(r"<script>/\*.*?</script>", "", html, count=1, flags=re.DOTALL)
    seen: dict[str, str] = {}
    html = re.sub(r"<code>\w{32}</code>", lambda found: seen.setdefault(found[0], f"trial {len(seen)}"), html)
    constant = re.compile(r"^const ([A-Z]+) = (.*);$", re.MULTILINE)
    return constant.sub(lambda found: f"const {found[1]} = {json.dumps(json.loads(found[2]), indent=0)};", html)


def differences(before: Path, after: Path, only: Sequence[str] = ()) -> list[str]:
    """Return what differs in two folders of results, by default all of them: the first line of each file."""
    roots = (before, after)
    names = {str(file.relative_to(root)) for root in roots for file in root.rglob("*") if file.is_file()}
    found = []
    for name in only or sorted(names):
        if not ((before / name).is_file() and (after / name).is_file()):
            found.append(f"{name}: only in {before if (before / name).is_file() else after}")
            continue
        one, other = ((root / name).read_text(encoding="utf-8").splitlines() for root in roots)
        pairs = enumerate(zip_longest(one, other, fillvalue="no such line"), 1)
        found += next(([f"{name}:{n}\n  {a:.300}\n  {b:.300}"] for n, (a, b) in pairs if a != b), [])
    return found


def compared(work: str, before: Path, after: Path) -> bool:
    """Print whether a work gave the same before and after, and return it."""
    texts = [file.read_text(encoding="utf-8") for file in (after / work).rglob("*") if file.is_file()]
    if any("was not found; looked in" in text for text in texts):
        print(f"not done  {work}: its data are not here", flush=True)
        return True
    found = differences(before / work, after / work)
    if work in KILLED:
        whole, resumed = after / KILLED[work] / "0", after / work / "0"
        found += [f"not as without kills: {one}" for one in differences(whole, resumed, KILL_TABLES)]
    if not all(text.endswith("status 0\n") for text in texts if "exit status" in text):
        found.append("a command failed")
    lines = sum(text.count("\n") for text in texts)
    what = f"{work}: {lines:,} lines in {len(texts)} files"
    print(f"{'DIFFERENT' if found else 'equal'}  {what}", *found, sep="\n  ", flush=True)
    return not found


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", nargs="?", help="a folder or a git revision; not with --before-results")
    parser.add_argument("after", nargs="?", help="another; not needed with --results")
    parser.add_argument("--before-results", type=Path, metavar="FOLDER", help="of an earlier call with --results")
    parser.add_argument("--results", type=Path, metavar="FOLDER", help="a new folder, to keep what was compared")
    parser.add_argument("--works", nargs="+", choices=ORDER, default=ORDER, metavar="WORK")
    args = parser.parse_args()
    if args.before_results:
        args.before, args.after = None, args.before
    return args


def main() -> None:
    args = parsed()
    begun, same = time.perf_counter(), True
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor() as pool:
        results = args.results or Path(scratch) / "results"
        before, after = args.before_results or results / "before", results / "after"
        trees = {"before": args.before, "after": args.after}
        sides = [Side(tree, Path(scratch) / f"{name:_<6}", results / name) for name, tree in trees.items() if tree]
        for work in sorted({*args.works, *(KILLED[work] for work in args.works if work in KILLED)}, key=ORDER.index):
            list(pool.map(Side.do, sides, [work] * len(sides)))
            same = (not args.after or compared(work, before, after)) and same
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s, wall_s = used.ru_utime + used.ru_stime, time.perf_counter() - begun
    verdict = ("equal, all of it" if same else "DIFFERENT") if args.after else f"kept in {before}"
    print(f"{verdict}; {cpu_s:.0f} s of CPU in {wall_s:.0f} s")
    raise SystemExit(not same)


if __name__ == "__main__":
    main()
