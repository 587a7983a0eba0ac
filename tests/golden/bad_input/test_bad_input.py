"""Every mistake in the files of a run, with the whole list of messages it must give.

The `*.txt` here hold the cases: `=== title`, then `--- FILE` with what stands in that file instead of in the
valid base below, `--- set` with `--set` assignments, and `--- messages` with what must be said.
HSGD_EMU_UPDATE_GOLDEN=1 writes the messages anew; read the difference before keeping it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hsgd_emu.config import profiles
from hsgd_emu.errors import ConfigError
from hsgd_emu.experiment import load_experiment

FOLDER = Path(__file__).parent

BASE = {
    "run.yaml": """\
name: base
topology: sites
compute: step
model: mlp
train: {iterations: 100}
cases: [{name: P=5, period: 5}]
""",
    "topologies/sites.yaml": """\
name: sites
levels:
  - {name: site, count: 2, uplink: far}
  - {name: worker, count: 3, uplink: near}
""",
    "latency_profiles/near.yaml": "rtt_s: 0.01\n",
    "latency_profiles/far.yaml": "rtt_s: 0.1\n",
    "latency_profiles/step.yaml": "step_s: 0.004\n",
}


def _alias_bomb() -> str:
    """Ten levels of ten aliases each: ten thousand million values out of eleven lines."""
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    return "\n".join(lines)


# Files too long or too odd to stand in a text file, by the title of their case.
BUILT: dict[str, tuple[str, Callable[[], bytes]]] = {
    "deep flow nesting": ("run.yaml", lambda: b"name: " + b"[" * 50_000),
    "deep block nesting": ("run.yaml", lambda: b"- " * 50_000),
    "deep mapping nesting": ("topologies/sites.yaml", lambda: b"{a: " * 50_000),
    "huge file": ("run.yaml", lambda: b"# far too much\n" * 700_000),
    "huge number of values": ("latency_profiles/near.yaml", lambda: b"rtt_s: [" + b"1," * 500_001 + b"]"),
    "alias bomb": ("run.yaml", lambda: _alias_bomb().encode()),
    "not UTF-8": ("topologies/sites.yaml", lambda: "name: Zürich\n".encode("latin-1")),
    "null byte": ("run.yaml", lambda: b"name: a\0b\n"),
    "number of 5000 digits": ("run.yaml", lambda: BASE["run.yaml"].replace("100", "9" * 5000).encode()),
    "csv that is not text": ("latency_profiles/rtts.csv", lambda: b"total_s\n\xff\xfe\n"),
}


@dataclass
class Case:
    """One mistake: the files that differ from the base, and the messages."""

    title: str
    files: dict[str, str] = field(default_factory=dict)

    @property
    def messages(self) -> str:
        return self.files.get("messages", "")


def _read(path: Path) -> list[Case]:
    cases: list[Case] = []
    name = ""
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.startswith("=== "):
            cases.append(Case(line[4:].strip()))
            name = ""
        elif line.startswith("--- "):
            name = line[4:].strip()
            cases[-1].files[name] = ""
        elif name:
            cases[-1].files[name] += line
    for case in cases:
        case.files = {name: text.rstrip("\n") + "\n" for name, text in case.files.items()}
    return cases


def _write(path: Path, cases: list[Case]) -> None:
    text = [f"=== {c.title}\n" + "".join(f"--- {n}\n{t}" for n, t in c.files.items()) for c in cases]
    path.write_text("\n".join(text), encoding="utf-8")


def _messages(case: Case, folder: Path) -> str:
    """Return what loading says of the case's files, laid out in the current folder."""
    for name, text in {**BASE, **case.files}.items():
        if name not in ("messages", "set"):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    if case.title in BUILT:
        name, content = BUILT[case.title]
        (folder / name).write_bytes(content())
    sets = case.files.get("set", "").splitlines()
    run = Path("missing.yml" if case.title == "missing run file" else "run.yaml")
    if case.title == "missing run file":
        (folder / "missing.yaml").touch()
    if case.title == "a folder instead of a file":
        run = Path("topologies")
    with pytest.raises(ConfigError) as error:
        load_experiment(run, sets)
    return f"{error.value}\n"


CASES = {path: _read(path) for path in sorted(FOLDER.glob("*.txt"))}


def _id(value: object) -> str | None:
    return value.stem if isinstance(value, Path) else value.title if isinstance(value, Case) else None


@pytest.mark.parametrize(("path", "case"), [(path, case) for path, cases in CASES.items() for case in cases], ids=_id)
def test_bad_input_is_explained(path: Path, case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # The shipped examples must not appear among the known names: these files are golden, and examples are added.
    monkeypatch.setattr(profiles, "examples_root", lambda: tmp_path)
    found = _messages(case, tmp_path)
    if os.environ.get("HSGD_EMU_UPDATE_GOLDEN"):
        case.files.pop("messages", None)
        case.files["messages"] = found
        _write(path, CASES[path])
    assert found == case.messages


def test_base_of_the_cases_is_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in BASE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    assert load_experiment("run.yaml").worker_names == tuple(f"worker-{n}" for n in range(6))


def test_titles_stand_once() -> None:
    titles = [case.title for cases in CASES.values() for case in cases]
    assert len(titles) == len(set(titles)) >= 60
    assert {title for title in BUILT if title not in titles} == set()
