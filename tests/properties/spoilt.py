"""Valid files of a run, and ways to spoil them."""

from __future__ import annotations

import copy
import os
import stat
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

FILES: dict[str, str] = {
    "run.yaml": """\
name: rich
description: everything a run file can hold
topology: tree
profiles:
  near: home
  far: &far {rtt_s: {samples: [0.1, 0.2, 1e-1]}, up_share: 0.3}
  lte: {latency_s: 0.02, bandwidth_bps: {up: 1e6, down: 8e6}, model: raw}
  satellite: *far
compute: {step_s: {distribution: lognormal, median: 4e-3, sigma: 0.3}}
data: {dataset: cifar10, partition: dirichlet, alpha: 0.5, augment: {crop: 4, flip: true},
       normalize: {mean: [0.5], std: [0.25, 0.25, 0.25]}}
model: {name: mlp, hidden: [200, 100], num_outputs: 10}
train:
  batch_size: full
  learning_rate: {schedule: step, initial: 0.1, milestones: [50], factor: 0.5}
  iterations: 100
  momentum: 0.9
  weight_decay: 1e-4
  participation: 0.5
cases:
  - {name: "P=5", period: 5}
  - {name: "1e-3", periods: [50, 5], participation: 1}
  - {name: "0o17", periods: {root: 50, campus: 10, depot: none}}
averaging: {by: samples}
evaluation: {every_iterations: 50}
targets: {test_accuracy: [0.5, 0.8], train_loss: [1]}
seeds: [1, 0, 9007199254740993]
timeline: rounds
message_bytes: 1000
""",
    "topologies/tree.yaml": """\
name: tree
root:
  aggregation_s: 0.01
  children:
    - name: campus
      uplink: far
      aggregation_s: {csv: costs.csv, column: agg_s}
      children:
        - {name: phone, count: 3, uplink: near, compute: slow}
        - {name: jetson, count: 2, uplink: {rtt_s: {distribution: gamma, shape: 2, scale: 0.01}}}
    - name: depot
      uplink: satellite
      children: [{name: truck, count: 2, uplink: lte}]
links:
  - {between: [phone, root], profile: far}
  - {between: [truck-0, campus], profile: {up_s: 0.1, down_s: {distribution: uniform, low: 0, high: 1}}}
""",
    "topologies/costs.csv": "agg_s,n\n0.1,1\n2e-1,2\n",
    "latency_profiles/home.yaml": "description: measured\nsource: at home\nrtt_s: {csv: home.csv, column: total_s}\n",
    "latency_profiles/home.csv": "total_s\n0.05\n0.06\n",
    "latency_profiles/slow.yaml": "step_s: {distribution: normal, mean: 0.1, std: 0.02}\n",
}
SMALL: dict[str, str] = {
    "run.yaml": """\
name: small
topology: {levels: [{name: site, count: 2, uplink: far}, {name: worker, count: 2, uplink: near}]}
profiles: {near: {rtt_s: 0.05}, far: {rtt_s: 0.3}}
compute: {step_s: 0.004}
model: mlp
train: {iterations: 100}
cases: [{name: P, period: 5}, {name: H, periods: [50, 5]}]
""",
}
SPOILT = ("run.yaml", "topologies/tree.yaml", "latency_profiles/home.yaml", "latency_profiles/slow.yaml")

_DEEP: Any = 1
for _ in range(60):
    _DEEP = [_DEEP]
ODD: list[Any] = [
    *(None, True, False, 0, 1, 2, 3, -1, 0.5, 1e-3, -0.0, 1e308, -1e308, 5e-324, 1e-200, 1e9, 2e9),
    *(float("nan"), float("inf"), float("-inf"), 10**15, 2**63, 10**30, -(10**30), 10**99),
    *("", " ", "\0", "a\nb", "x" * 5000, "\u2028", "é\u202e", "\x85", "1e5", "none", "full", "1_000", "0x1F"),
    *("root", "phone", "campus", "phone-0", "near", "home", "slow", "tree", "cifar10", "natural", "mlp", "resnet18"),
    *("..", "/", ".", "/dev/null", "../run.yaml", "run.yaml", "topologies/tree.yaml", "a/\0.yaml", "no:where", ":"),
    *([], {}, [[]], [1], [0.1, 0.2], ["root", "phone"], {"a": 1}, _DEEP, {"": 1}, {"\n": {"\0": None}}),
    *({"rtt_s": 1}, {"step_s": 1}, {"samples": [1]}, {"csv": "costs.csv", "column": "n"}, {"csv": "\0", "column": ""}),
    *("40 ms", "2.6 GB", "100 Mb/s", "1e9999 TB", "9" * 90 + " d", "1,5 s", "-3 MiB", "5 ??", "1e-400 h", "least_cost"),
    {"csv": "costs.csv", "column": "n", "unit": "ms", "missing": "drop"},
    *({"distribution": "gamma", "shape": 1e9, "scale": 1e9}, {"distribution": []}, {"schedule": {}}),
    {"distribution": "normal", "mean": 1, "std": 1e-200},
    {"distribution": "normal", "mean": -1e9, "std": 1e-9},
    {"distribution": "lognormal", "median": 1e9, "sigma": 10},
    {"latency_s": 0, "bandwidth_bps": 1e-300, "model": "raw"},
    {"schedule": "cosine", "initial": 0.1},
    {"levels": [{"name": "w", "count": 1, "uplink": "near"}]},
    {"options": {"a": [float("nan"), "1e3", {}]}, "name": "a:b"},
    {"name": "vgg11"},
]
EXTREMES: list[Any] = [
    *(0, 1, -1, 10**9, 10**15, 10**18, 2**63 - 1, 2**63, 2**64, 10**40, -(10**15), -(2**63)),
    *(-0.0, 5e-324, 1e-300, 1e-9, 1e9, 1.1e9, 1e18, 1e300, 1e308, -1e308, float("inf"), float("-inf"), float("nan")),
]
SPECIAL = ["pipe.yaml", "loop.yaml", "socket.yaml", "folder.yaml", "zero.yaml", "null.yaml"]
"""Names of what is no file; `make_special` makes them."""
ODD += [f"./{name}" for name in SPECIAL]
ODD += [{"csv": name, "column": "n"} for name in SPECIAL]

TOKENS = [
    "\t",
    ": ",
    "- ",
    "{",
    "}",
    "[",
    "]",
    "&a ",
    "*a",
    "*far",
    "!!str ",
    "!x ",
    "---\n",
    "...\n",
    "\0",
    "\x85",
    "\ufeff",
]
TOKENS += [
    "é",
    "\u2028",
    "'",
    '"',
    "#",
    "%YAML 9",
    "1e-3",
    ".nan",
    "|\n",
    ">\n",
    "? ",
    "<<: ",
    "\n",
    "  ",
    "\\",
    "@",
    "0x",
    "~",
]


def places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all values inside `data`."""
    keys = list(data) if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else []
    found: list[tuple[Any, ...]] = []
    for key in keys:
        found += [(*path, key), *places(data[key], (*path, key))]
    return found


def make_special(folder: Path) -> None:
    """Put into a folder what has the names of SPECIAL."""
    os.mkfifo(folder / "pipe.yaml")
    (folder / "loop.yaml").symlink_to("loop.yaml")
    (folder / "zero.yaml").symlink_to("/dev/zero")
    (folder / "null.yaml").symlink_to("/dev/null")
    (folder / "folder.yaml").mkdir()
    os.mknod(folder / "socket.yaml", stat.S_IFSOCK | 0o600)


@st.composite
def extreme_files(draw: st.DrawFn) -> dict[str, bytes]:
    """Valid files in which up to three numbers are extreme ones, mostly one."""
    files = draw(st.sampled_from([FILES, SMALL]))
    data = {name: yaml.safe_load(files[name]) for name in SPOILT if name in files}
    for _ in range(draw(st.sampled_from([1, 1, 1, 3]))):
        numbers = [path for path in places(data) if isinstance(_at(data, path), int | float)]
        path = draw(st.sampled_from(numbers))
        _at(data, path[:-1])[path[-1]] = draw(st.sampled_from(EXTREMES))
    content = {name: text.encode() for name, text in files.items()}
    return content | {name: yaml.safe_dump(value, allow_unicode=True).encode() for name, value in data.items()}


def _at(data: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        data = data[key]
    return data


@st.composite
def spoilt_files(draw: st.DrawFn) -> dict[str, bytes]:
    """Valid files with up to four changes to their data, mostly one."""
    files = draw(st.sampled_from([FILES, SMALL]))
    data = {name: yaml.safe_load(files[name]) for name in SPOILT if name in files}
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 4]))):
        _spoil(draw, data)
    content = {name: text.encode() for name, text in files.items()}
    return content | {name: yaml.safe_dump(value, allow_unicode=True).encode() for name, value in data.items()}


def _spoil(draw: st.DrawFn, data: dict[str, Any]) -> None:
    path = draw(st.sampled_from(places(data)))
    holder = data
    holder = _at(holder, path[:-1])
    key = path[-1]
    action = draw(st.sampled_from(["odd", "odd", "delete", "copy", "typo", "insert", "graft"]))
    if action == "odd":
        holder[key] = copy.deepcopy(draw(st.sampled_from(ODD)))
    elif len(path) == 1:
        return
    elif action == "delete":
        del holder[key]
    elif action == "graft":
        holder[key] = copy.deepcopy(_at(data, draw(st.sampled_from(places(data)))))
    elif isinstance(holder, list):
        holder.insert(key, copy.deepcopy(holder[key] if action == "copy" else draw(st.sampled_from(ODD))))
    elif action == "typo":
        holder[str(key)[:-1]] = holder.pop(key)
    else:
        words = ["levels", "count", "uplink", "name", "period", "samples", "csv", "rtt_s", "step_s", "model", "", "\n"]
        value = holder[key] if action == "copy" else draw(st.sampled_from(ODD))
        holder[draw(st.sampled_from(words))] = copy.deepcopy(value)


@st.composite
def garbled_files(draw: st.DrawFn) -> dict[str, bytes]:
    """Valid files of which one had its bytes edited."""
    files = draw(st.sampled_from([FILES, SMALL]))
    content = {name: text.encode() for name, text in files.items()}
    name = draw(st.sampled_from(sorted(files)))
    for _ in range(draw(st.sampled_from([1, 1, 2, 5]))):
        content[name] = _edited(draw, content[name])
    return content


def _edited(draw: st.DrawFn, text: bytes) -> bytes:
    start = draw(st.integers(0, len(text)))
    end = min(len(text), start + draw(st.integers(0, 12)))
    new = draw(st.one_of(st.sampled_from(TOKENS).map(str.encode), st.binary(max_size=4), st.just(text[start:end] * 2)))
    return text[:start] + new + text[end:]


KEYS = ["name", "topology", "profiles.near.rtt_s", "compute.step_s", "train", "train.iterations", "cases.0.period"]
KEYS += ["cases.1", "cases.9.name", "data.options", "model.options.a", "seeds", "seeds.0", "targets.test_accuracy"]
KEYS += ["", ".", "a..b", "cases", "cases.x", "topology.levels.0.count", "\n", "\udcff", "train.iterations.x.0.y", "é"]


def set_arguments() -> st.SearchStrategy[str]:
    """`--set` assignments, most of them wrong."""
    values = [yaml.safe_dump(value, default_flow_style=True, allow_unicode=True).strip() for value in ODD]
    value = st.sampled_from([*values, *TOKENS, "", "5", "[1", "\udcff", "&a [*a]"])
    return st.builds("{}{}{}".format, st.sampled_from(KEYS), st.sampled_from(["=", "=", "=", ""]), value)
