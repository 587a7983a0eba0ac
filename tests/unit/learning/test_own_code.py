"""Own code is told by what it was when it ran: whatever way it came in by, whatever else it read."""

from __future__ import annotations

import os
import shutil
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from hsgd_emu.config.run_schema import DataSpec, ModelSpec
from hsgd_emu.config.server_schema import ServerSpec
from hsgd_emu.errors import ConfigError
from hsgd_emu.learning.facts import differences
from hsgd_emu.learning.material import Material
from hsgd_emu.learning.own_code import is_own_file

PLAIN = "import torch\n\ndef make(input_shape, num_classes):\n    return torch.nn.Linear(64, 10)\n"


def material(base: Path, model: str = "net:make", data: str = "digits") -> Material:
    return Material(DataSpec(dataset=data), ModelSpec(name=model), base)


def facts(base: Path, model: str = "net:make", data: str = "digits") -> dict[str, str]:
    return material(base, model, data).facts([1])


def write(base: Path, *inside: tuple[str, str], **files: str) -> None:
    """Write modules. Changing one digit keeps size and, here, time: a stale __pycache__ shows."""
    for name, text in (*inside, *files.items()):
        path = base / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        os.utime(path, (1, 1))


def net(body: str, before: str = "", width: str = "") -> str:
    """Return a module whose factory makes a network out of `width`, and `body` in its forward."""
    return f"""
import importlib, importlib.util, os, sys, torch
from pathlib import Path
HERE = Path(__file__).parent
{before}

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        {width or "width = 4"}
        self.layers = torch.nn.Sequential(torch.nn.Linear(64, width), torch.nn.Tanh(), torch.nn.Linear(width, 10))

    def forward(self, x):
        {body}

def make(input_shape, num_classes):
    return Net()
"""


THROUGH = {
    "a module it imports": net("return self.layers(x)", "from helper import WIDTH", "width = WIDTH"),
    "a module added to the path": net(
        "return self.layers(x)", "sys.path.insert(0, str(HERE / 'src'))\nfrom far import WIDTH", "width = WIDTH"
    ),
    "import_module": net("return self.layers(x)", width="width = importlib.import_module('helper').WIDTH"),
    "a module in forward": net("from helper import WIDTH\n        return self.layers(x) * WIDTH"),
    "a module of a namespace package": net("return self.layers(x)", "from space.inner import WIDTH", "width = WIDTH"),
    "a module by its path": net(
        "return self.layers(x) * there.WIDTH",
        "spec = importlib.util.spec_from_file_location('there', HERE / 'helper.py')\n"
        "there = importlib.util.module_from_spec(spec)\nspec.loader.exec_module(there)",
    ),
    "a file it executes": net("return self.layers(x) * WIDTH", "exec((HERE / 'helper.py').read_text())"),
}


@pytest.mark.parametrize("way", THROUGH)
def test_a_change_is_seen_whatever_way_code_comes_in_by(tmp_path, way):
    places = ("helper", "src/far", "space/inner")
    write(tmp_path, *((place, "WIDTH = 4\n") for place in places), net=THROUGH[way])
    before = facts(tmp_path)
    assert facts(tmp_path) == before
    write(tmp_path, *((place, "WIDTH = 8\n") for place in places))
    now = facts(tmp_path)
    assert differences(before, now)
    if "executes" not in way:
        assert "own module" in differences(before, now)[0]


def test_a_change_in_a_package_outside_the_folder_and_in_a_zip_file(tmp_path, monkeypatch):
    write(tmp_path / "run", net="from mine.layer import width\n" + PLAIN)
    write(tmp_path / "elsewhere", ("mine/__init__", ""), ("mine/layer", "width = 1\n"))
    monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))
    before = facts(tmp_path / "run")
    write(tmp_path / "elsewhere", ("mine/layer", "width = 2\n"))
    assert differences(before, facts(tmp_path / "run")) == ["own module mine.layer has changed"]
    monkeypatch.setattr(sys, "path", [str(tmp_path / "packed.zip"), *sys.path[1:]])
    packed = []
    for number in "12":
        with zipfile.ZipFile(tmp_path / "packed.zip", "w") as file:
            file.writestr("mine/__init__.py", "")
            file.writestr("mine/layer.py", f"width = {number}\n")
        packed.append(facts(tmp_path / "run"))
    assert differences(*packed) == ["own module mine.layer has changed"]


READ = {
    "the scale of its output": net("return self.layers(x) * float(os.environ['OWN'])"),
    "its width": net("return self.layers(x)", width="width = int(os.environ['OWN'])"),
    "dropout": net("return torch.nn.functional.dropout(self.layers(x), float(os.environ['OWN']) / 9, self.training)"),
    "the momentum of its statistics": net("return self.layers(x)", width="width = 4; self.norm = 1").replace(
        "torch.nn.Tanh()", "torch.nn.BatchNorm1d(width, momentum=int(os.environ['OWN']) / 10)"
    ),
    "a frozen layer": net("return self.layers(x)").replace(
        "return Net()", "made = Net()\n    made.layers[int(os.environ['OWN'])].requires_grad_(False)\n    return made"
    ),
    "what zeros hide": net("return self.layers(x)").replace(
        "return Net()",
        "made = Net()\n    torch.nn.init.zeros_(made.layers[2].weight)\n"
        "    made.layers[1] = torch.nn.LeakyReLU(int(os.environ['OWN']) / 10)\n    return made",
    ),
    "a gradient": net(
        "return Own.apply(self.layers(x))",
        """
class Own(torch.autograd.Function):
    @staticmethod
    def forward(context, x):
        return x.clone()
    @staticmethod
    def backward(context, gradient):
        return gradient * int(os.environ['OWN'])
""",
    ),
}


@pytest.mark.parametrize("what", READ)
def test_what_the_environment_decides_is_seen(tmp_path, monkeypatch, what):
    write(tmp_path, net=READ[what])
    first, second = ("0", "2") if what == "a frozen layer" else ("3", "5")
    monkeypatch.setenv("OWN", first)
    before = facts(tmp_path)
    assert facts(tmp_path) == before
    monkeypatch.setenv("OWN", second)
    assert differences(before, facts(tmp_path)) == ["model of seed 1 has changed"]


def test_a_file_of_weights_is_seen_to_the_last_bit(tmp_path):
    write(
        tmp_path,
        net=net("return self.layers(x)").replace(
            "return Net()", "made = Net()\n    made.load_state_dict(torch.load(HERE / 'weights.pt'))\n    return made"
        ),
    )
    torch.manual_seed(1)
    layers = torch.nn.Sequential(torch.nn.Linear(64, 4), torch.nn.Tanh(), torch.nn.Linear(4, 10))
    found = []
    for _ in range(2):
        torch.save({f"layers.{k}": v for k, v in layers.state_dict().items()}, tmp_path / "weights.pt")
        found.append(facts(tmp_path))
        with torch.no_grad():
            layers[0].bias[0] = torch.nextafter(layers[0].bias[0], torch.tensor(1.0))
    assert differences(*found) == ["model of seed 1 has changed"]


def test_a_module_made_in_memory_is_told_by_what_it_makes(tmp_path, monkeypatch):
    module = types.ModuleType("in_memory")
    monkeypatch.setitem(sys.modules, "in_memory", module)
    exec(PLAIN, module.__dict__)
    before = facts(tmp_path, "in_memory:make")
    exec(PLAIN.replace("torch.nn.Linear(64, 10)", "torch.nn.Linear(64, 11)"), module.__dict__)
    assert differences(before, facts(tmp_path, "in_memory:make")) == ["model of seed 1 has changed"]


def test_data_that_a_factory_reads_are_told_by_their_content(tmp_path):
    write(
        tmp_path,
        table="""
import numpy
from pathlib import Path

def load():
    x = numpy.loadtxt(Path(__file__).with_name("x.csv"), delimiter=",", dtype="float32")
    return x, [0, 1] * 3, x, [0, 1] * 3
""",
    )
    found = []
    for number in (1, 1, 2):
        np.savetxt(tmp_path / "x.csv", np.eye(6) * number, delimiter=",")
        os.utime(tmp_path / "x.csv", (1, 1))
        found.append(facts(tmp_path, "mlp", "table:load"))
    assert found[0] == found[1]
    assert differences(found[1], found[2]) == ["data has changed"]


def test_what_decides_nothing_changes_nothing(tmp_path, monkeypatch):
    for folder in ("a", "b"):
        package = ("pack/__init__", ""), ("pack/parts", "one = 1\n")
        write(tmp_path / folder, *package, net="from pack.parts import one\n" + PLAIN)
    before = facts(tmp_path / "a")
    assert {name for name in before if name.startswith("own module")} == {
        "own module net",
        "own module pack",
        "own module pack.parts",
    }
    assert facts(tmp_path / "b") == before
    os.utime(tmp_path / "a" / "net.py", (9, 9))
    write(tmp_path / "a", unrelated="1 / 0\n")
    monkeypatch.setenv("UNRELATED", "1")
    torch.set_num_threads(2)
    try:
        assert facts(tmp_path / "a") == before
    finally:
        torch.set_num_threads(1)
    shutil.rmtree(tmp_path / "a" / "__pycache__", ignore_errors=True)
    (tmp_path / "a").rename(tmp_path / "c")
    assert facts(tmp_path / "c") == before
    # What the process has imported for itself is none of the model's.
    monkeypatch.syspath_prepend(str(tmp_path / "b"))
    __import__("pack.parts")
    monkeypatch.delitem(sys.modules, "pack.parts")
    monkeypatch.delitem(sys.modules, "pack")
    assert facts(tmp_path / "c") == before


def test_modules_are_loaded_anew_and_those_of_the_user_stay(tmp_path, monkeypatch):
    write(
        tmp_path,
        net="import sys\nsys.path.append('/left/behind')\nCALLS = []\n"
        + PLAIN.replace("    return", "    CALLS.append(1)\n    assert len(CALLS) < 3\n    return"),
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import net  # of the user's notebook

    path, theirs = list(sys.path), sys.modules["net"]
    for _ in range(3):
        one = material(tmp_path)
        one.build(1)
        one.build(2)  # one run keeps its modules
        assert (sys.path, sys.modules["net"], net.CALLS) == (path, theirs, [])
    monkeypatch.delitem(sys.modules, "net")


def test_changes_while_a_trial_is_learned_are_told(tmp_path):
    write(tmp_path, net=THROUGH["a module it imports"], helper="WIDTH = 4\n", late="")
    one = material(tmp_path)
    one.facts([1])
    assert one.changed() == []
    write(tmp_path, helper="WIDTH = 8\n")
    assert one.changed() == ["own module helper has changed"]
    write(tmp_path, helper="WIDTH = 4\n")
    with one.active():
        __import__("late")
    assert one.changed() == ["own module late is new"]
    one.dataset.train_x[0, 0] += 1
    assert one.changed()[0] == "data has changed"


def test_a_factory_that_makes_another_network_each_time_is_refused(tmp_path):
    write(
        tmp_path,
        net=PLAIN.replace(
            "    return", "    import os\n    torch.manual_seed(int(os.urandom(7).hex(), 16))\n    return"
        ),
    )
    one = material(tmp_path)
    one.facts([1])
    with pytest.raises(ConfigError, match=r"model: 'net:make' made two different networks for seed 1"):
        one.model_to_learn(1)


def test_whose_a_file_is(tmp_path, monkeypatch):
    import os as of_python

    import hsgd_emu.rng as ours

    for module in (of_python, ours, np, torch, pytest):
        assert not is_own_file(module.__file__), module
    # `pip install --target`: the folder tells which of its modules are distributions.
    target = tmp_path / "target"
    write(target, given="", mine="")
    (target / "given-1.dist-info").mkdir()
    (target / "given-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: given\nVersion: 1\n")
    (target / "given-1.dist-info" / "RECORD").write_text("given.py,,\ngiven-1.dist-info/METADATA,,\n")
    monkeypatch.syspath_prepend(str(target))
    assert is_own_file(str(target / "mine.py"))
    assert not is_own_file(str(target / "given.py"))


RULE = """
from helper import RATE

class Rule:
    def step(self, state, x, average):
        return {name: before + RATE * (average[name] - before) for name, before in x.items()}

def make(**options):
    return Rule()
"""


def test_a_rule_of_servers_is_told_by_its_modules_and_by_what_it_computes(tmp_path):
    def seen(**options) -> dict[str, str]:
        rule = ServerSpec(optimizer="rule:make", options=options or None)
        return Material(DataSpec(), ModelSpec(name="mlp"), tmp_path, rules=[rule]).facts([1])

    write(tmp_path, rule=RULE, helper="RATE = 0.5")
    first = seen()
    assert {"own module rule", "own module helper"} < set(first)
    assert differences(first, seen()) == []
    write(tmp_path, helper="RATE = 0.4")
    changed = differences(first, seen())
    assert "own module helper has changed" in changed
    assert any(text.startswith("own rule ") for text in changed)
    write(tmp_path, rule="def make():\n    return 3\n")
    with pytest.raises(ConfigError, match="does not work: TypeError: the factory returned a int without step"):
        seen()
