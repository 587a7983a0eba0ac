"""The house's order, read from the imports: left never imports right, and some libraries have one door each."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "hsgd_emu"
RANK = {
    **dict.fromkeys(("errors", "metrics", "units", "rng", "spawning", "files", "atomic", "locks", "terminal"), 0),
    "config": 1,
    "topology": 2,
    "timing": 3,
    "engine": 4,
    "learning": 5,
    "results": 6,
    **dict.fromkeys(("effects", "together", "experiment", "init"), 7),
    **dict.fromkeys(("algorithm", "growth", "trials"), 8),
    **dict.fromkeys(("beside", "run"), 9),
    "study": 10,
    "report": 11,
    "check": 11,
    "show": 12,
    "verbs": 11,
    "progress": 12,
    "watch": 12,
    "cli": 13,
}
DOORS = {"networkx": "topology", "simpy": "engine", "torch": "learning", "torchvision": "learning", "plotly": "report"}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py" or path.parent != PACKAGE)


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_left_never_imports_right(path):
    rank = RANK[part_of(path)]
    for name in imports(path):
        if name.startswith("hsgd_emu."):
            part = name.split(".")[1]
            assert RANK[part] <= rank, f"{path.name} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_some_libraries_have_one_door(path):
    for name in imports(path):
        door = DOORS.get(name.split(".")[0])
        assert door in (None, part_of(path)), f"{path.name} imports {name}"
