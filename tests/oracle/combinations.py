"""Run files with whatever algorithms go together, drawn from a seed: trees, schedules, steps, servers, senders."""

from __future__ import annotations

from copy import deepcopy
from random import Random
from typing import Any

Yaml = dict[str, Any]
_WORKER = {"name": "worker", "uplink": "near"}
TREES: dict[str, Yaml] = {
    "two": {
        "levels": [{"name": "site", "count": 2, "uplink": "far"}, _WORKER | {"count": 3}],
        "links": [{"between": ["worker", "root"], "profile": "direct"}],
    },
    "uneven": {
        "root": {
            "aggregation_s": 0.002,
            "children": [
                {"name": "site", "uplink": "far", "aggregation_s": 0.001, "children": [_WORKER | {"count": 3}]},
                {"name": "site", "uplink": "far", "children": [_WORKER | {"compute": "slow"}]},
            ],
        }
    },
    "three": {
        "levels": [
            {"name": "hub", "count": 2, "uplink": "far"},
            {"name": "site", "count": 2, "uplink": "mid"},
            _WORKER | {"count": 2},
        ]
    },
    "hubs": {
        "root": {
            "children": [
                {"name": "site", "uplink": "far", "children": [_WORKER | {"count": num, **more}]}
                for num, more in ((1, {"compute": "slow"}), (2, {}), (1, {"compute": "slow"}), (2, {}))
            ]
        },
        "links": [
            {"between": ["site-0", "site-1"], "profile": "mid"},
            {"between": ["site-2", "site-1"], "profile": "peer"},
            {"between": ["site-2", "site-3"], "profile": "far"},
        ],
    },
    "hubs of sites": {
        "levels": [
            {"name": "hub", "count": 3, "uplink": "far"},
            {"name": "site", "count": 2, "uplink": "mid"},
            _WORKER | {"count": 1},
        ]
    },
}
ROUND_TRIPS = {"far": 0.3, "mid": 0.1, "near": 0.02, "direct": 0.26, "peer": 0.9}
RATES = {"far": 1e6, "mid": 2e6, "near": 8e6, "direct": 1.6e6, "peer": 5e5}
"""In bit/s, so that bytes are whole nanoseconds."""


def run_of(seed: int, num_cases: int) -> Yaml:
    """Return a run file's data; not all its cases need go together."""
    dice = Random(seed)
    kind = dice.choice(list(TREES))
    tree, iterations = deepcopy(TREES[kind]), dice.choice([24, 36, 40])
    profiles: Yaml = {name: {"rtt_s": rtt} for name, rtt in ROUND_TRIPS.items()}
    if dice.random() < 0.3 and kind != "two":
        profiles = {n: {"latency_s": 0.01, "bandwidth_bps": rate, "model": "raw"} for n, rate in RATES.items()}
    profiles["slow"] = {"step_s": 0.011}
    train: Yaml = {"batch_size": "full", "learning_rate": 0.2, "iterations": iterations, "dtype": "float64"}
    if dice.random() < 0.3:
        train["loss"] = "squared"
    run: Yaml = {
        "name": "check",
        "topology": tree,
        "profiles": {name: profile for name, profile in profiles.items() if f"'{name}'" in str(tree)},
        "compute": {"step_s": 0.004},
        "data": {"dataset": "digits", "partition": dice.choice(["by_label", "iid", "dirichlet"])},
        "model": "softmax_regression",
        "train": train,
        "seeds": [dice.choice([1, 2])],
        "evaluation": {"every_iterations": dice.choice([1, 5, 8])},
        "cases": [{"name": f"c{number}"} | _case(dice, kind, iterations) for number in range(num_cases)],
    }
    if run["data"]["partition"] == "dirichlet":
        run["data"]["alpha"] = 0.5
    if dice.random() < 0.5:
        run["message_bytes"] = dice.choice([2600, 1000, 123456])
    if dice.random() < 0.8:
        run["evaluation"]["averaged"] = {"after": dice.choice([0, 0, 7])}
    return run


def _case(dice: Random, kind: str, iterations: int) -> Yaml:
    mixes = kind.startswith("hubs") and dice.random() < 0.6
    case = _nested(dice, kind, iterations) if mixes else _schedule(dice, kind, iterations)
    corrects = "period" in case and dice.random() < 0.25
    train = case["train"] = {"correction": "scaffold"} if corrects else {}
    train |= _step(dice, corrects, mixes)
    if not corrects and dice.random() < 0.3:
        train["step_probability"] = dice.choice([0.5, {"worker": 0.7, "worker-1": 0.3}, {"worker-0": 0.6}])
    if not corrects and dice.random() < 0.4:
        dice.choice([case, train])["participation"] = dice.choice([0.5, 0.3, 0.7])
    if dice.random() < 0.4:
        case["averaging"] = {"by": dice.choice(["samples", "uniform", "workers"])}
    servers = [name for name in _servers(case, kind) if not (mixes and name == "root")]
    case["servers"] = {name: _rule(dice) for name in servers if dice.random() < 0.35}
    if not corrects and train.get("state") != "average" and dice.random() < 0.5:
        hubs = ["hub", "site-0", "site"] if kind == "hubs" else ["hub"]
        senders = [name for name in servers if not (mixes and name in hubs)]
        ways = {"root": ["down"]} | ({"worker": ["up"]} if dice.random() < 0.7 else {})
        ways = {n: ways.get(n, ["up"] if "phases" in case else ["up", "down", "both"]) for n in [*ways, *senders]}
        if mixes:
            del ways["root"]
        case["compression"] = {n: _compression(dice, which) for n, which in ways.items() if dice.random() < 0.6}
    if mixes:
        case["mixing"] = {"graph": dice.choice(["complete", "ring", *(["links"] * 3 if kind == "hubs" else [])])}
    return {key: value for key, value in case.items() if value != {}}


def _schedule(dice: Random, kind: str, iterations: int, is_phase: bool = False) -> Yaml:
    form = dice.choice(["period", "periods", "periods", *([] if is_phase else ["phases"])])
    if form == "period":
        return {"period": _rounds(dice, dice.choice([1, 2, 4]), iterations)}
    if form == "periods":
        return _nested(dice, kind, iterations)
    phases, left = list[Yaml](), iterations
    while left == iterations or (left > 8 and dice.random() < 0.5):
        num = 4 * dice.randint(1, 2)
        phases.append({"iterations": num} | _schedule(dice, kind, num, is_phase=True))
        left -= num
    phases.append(_schedule(dice, kind, left, is_phase=True))
    if dice.random() < 0.3:
        phases[0]["participation"] = 0.5
    return {"phases": phases}


def _nested(dice: Random, kind: str, iterations: int) -> Yaml:
    period = dice.choice([1, 2, 4])
    below, root = dice.choice([num for num in (1, 2, 4) if period % num == 0]), _rounds(dice, period, iterations)
    if kind in ("three", "hubs of sites"):
        skips = dice.random() < 0.3 and kind == "three"
        return {"periods": {"root": root, "hub": "none", "site": below} if skips else [root, period, below]}
    return {"periods": dice.choice([{"root": root, "site-0": below, "site": period}, [root, period]])}


def _rounds(dice: Random, unit: int, iterations: int) -> Any:
    fitting = [num for num in (unit, 2 * unit, 4 * unit) if iterations % num == 0]
    growing: Yaml = {"first": unit, "times": dice.choice([1, 2, 3])}
    if dice.random() < 0.5:
        growing["most"] = unit * dice.choice([1, 3, 5])
    added = {"first": unit * dice.choice([1, 2]), "add": unit * dice.choice([0, 1, 2])}
    listed = {"rounds": [unit * dice.randint(1, 4) for _ in range(dice.randint(1, 4))]}
    return dice.choice([dice.choice(fitting), "once", growing, added, listed])


def _servers(case: Yaml, kind: str) -> list[str]:
    """Return names of servers that average: of a level as such, or those that a mapping names."""
    found = {"root"}
    for phase in case.get("phases", [case]):
        periods = phase.get("periods", {})
        if isinstance(periods, list):
            found |= {"site", "hub"} if len(periods) == 3 else {"site"}
        else:
            found |= {name for name, period in periods.items() if period != "none"}
    return sorted(found)


def _step(dice: Random, corrects: bool, mixes: bool) -> Yaml:
    """Return what a worker's step is."""
    optimizer = "sgd" if corrects else dice.choice(["sgd", "sgd", "sgd", "adam", "adamw"])
    rates: list[Any] = [0.2, 0.1, {"schedule": "power", "initial": 0.5, "exponent": dice.choice([0, 0.6, 1])}]
    rates += [{"schedule": "cosine", "initial": 0.3, "final": 0.01, "warmup": 5}]
    rates += [{"schedule": "step", "initial": 0.3, "milestones": [7, 13], "factor": 0.5}]
    train: Yaml = {"learning_rate": dice.choice(rates)}
    if optimizer != "sgd":
        power = {"schedule": "power", "initial": 0.05, "exponent": 0.5}
        train = {"optimizer": optimizer, "learning_rate": dice.choice([0.01, power])}
        train |= {"betas": [0.7, 0.9]} if dice.random() < 0.3 else {"epsilon": 0.0001}
    elif not corrects and dice.random() < 0.5:
        train["momentum"] = dice.choice([0.5, 0.9])
    if dice.random() < 0.3:
        train["weight_decay"] = 0.01
    if (optimizer != "sgd" or "momentum" in train) and dice.random() < 0.7:
        train["state"] = dice.choice(["keep", "reset"] if mixes else ["keep", "reset", "average", "average"])
    if dice.random() < 0.3:
        train["proximal"] = dice.choice([0.1, 1.0])
    if dice.random() < 0.3 and not corrects:
        train["clip_norm"] = dice.choice([0.1, 1.0])
    return train


def _rule(dice: Random) -> Yaml:
    optimizer = dice.choice(["average", "momentum", "nesterov", "adam", "yogi", "adagrad"])
    if optimizer == "average":
        return {"optimizer": optimizer}
    if optimizer in ("momentum", "nesterov"):
        rule: Yaml = {"optimizer": optimizer, "momentum": dice.choice([0.0, 0.5, 0.9])}
        return rule | dice.choice([{}, {"learning_rate": 0.5}, {"learning_rate": 1.0}])
    more = dice.choice([{}, {}, {"betas": [0.5, 0.8]}, {"epsilon": 0.01}])
    return {"optimizer": optimizer, "learning_rate": dice.choice([0.1, 0.03]), **more}


def _compression(dice: Random, ways: list[str]) -> Yaml:
    method = dice.choice(["top_k", "random_k", "quantize"])
    found: Yaml = {"method": method, "direction": dice.choice(ways), "error_feedback": dice.random() < 0.6}
    if method == "quantize":
        return found | {"bits": dice.choice([2, 3, 4, 8, 16]), "rounding": dice.choice(["nearest", "stochastic"])}
    return found | {"fraction": dice.choice([0.05, 0.11, 0.3, 1.0] if method == "top_k" else [0.0001, 0.05, 0.3])}
