"""Hypothesis strategies: any tree, any profiles, any periods that a run file may hold."""

from __future__ import annotations

from random import Random
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from oracle.drive import run_data

_NS = st.sampled_from([0.0, 1e-9, 3e-9, 0.001, 0.004, 0.05, 0.1, 0.1, 0.25, 1.0])
"""Few different numbers, so that ties are common; odd nanoseconds, so that halving an RTT rounds."""


@st.composite
def costs(draw: DrawFn) -> Any:
    """A number, samples or a distribution."""
    kind = draw(st.sampled_from(["number", "number", "samples", "lognormal", "normal", "gamma", "uniform"]))
    if kind == "number":
        return draw(_NS)
    if kind == "samples":
        return {"samples": draw(st.lists(_NS, min_size=1, max_size=4))}
    figures = {
        "lognormal": {"median": 0.1, "sigma": draw(st.sampled_from([0.0, 0.3, 1.5]))},
        "normal": {"mean": draw(st.sampled_from([-0.01, 0.1])), "std": 0.05},
        "gamma": {"shape": 2.0, "scale": 0.02},
        "uniform": {"low": 0.01, "high": draw(st.sampled_from([0.01, 0.3]))},
    }
    return {"distribution": kind, **figures[kind]}


@st.composite
def links(draw: DrawFn) -> dict[str, Any]:
    """A link profile of any of the three forms."""
    form = draw(st.sampled_from(["rtt", "rtt", "two", "raw"]))
    if form == "rtt":
        profile = {"rtt_s": draw(costs())}
        if draw(st.booleans()):
            profile["up_share"] = draw(st.sampled_from([0.0, 0.3, 0.75, 1.0]))
        return profile
    if form == "two":
        return {"up_s": draw(costs()), "down_s": draw(costs())}
    rate: Any = draw(st.sampled_from([1e6, 3e4, {"up": 1e5, "down": 7e5}]))
    return {"latency_s": draw(costs()), "bandwidth_bps": rate, "model": "raw"}


class _Builder:
    """Grows one tree and remembers its names."""

    def __init__(self, draw: DrawFn) -> None:
        self.draw = draw
        self.names: list[str] = ["root"]
        self.periods: dict[str, int | str] = {}
        self.num_workers = 0
        self.workers: list[str] = []
        """Their classes."""

    def children(self, depth: int, period: int, copies: int) -> list[dict[str, Any]]:
        """Return the specs below a server whose nearest aggregating period is `period`."""
        return [self.node(depth, period, copies) for _ in range(self.draw(st.integers(1, 2 if depth > 1 else 3)))]

    def node(self, depth: int, period: int, copies: int) -> dict[str, Any]:
        name = f"n{len(self.names)}"
        self.names.append(name)
        count = self.draw(st.integers(1, 3)) if copies < 4 else 1
        spec: dict[str, Any] = {"name": name, "count": count, "uplink": self.draw(links())}
        if depth <= 1 or self.draw(st.integers(0, 3)) == 0:
            self.num_workers += copies * count
            self.workers.append(name)
            if self.draw(st.booleans()):
                spec["compute"] = {"step_s": self.draw(costs())}
            return spec
        own = self.divisor(period)
        skipped = self.draw(st.integers(0, 3)) == 0
        self.periods[name] = "none" if skipped else own
        if self.draw(st.booleans()):
            spec["aggregation_s"] = self.draw(costs())
        spec["children"] = self.children(depth - 1, period if skipped else own, copies * count)
        only_workers = all("children" not in child for child in spec["children"])
        if only_workers and copies * count > 1 and self.draw(st.booleans()):
            self.periods[f"{name}-0"] = self.divisor(period)
        return spec

    def divisor(self, period: int) -> int:
        return self.draw(st.sampled_from([one for one in range(1, period + 1) if period % one == 0]))


@st.composite
def runs(draw: DrawFn) -> dict[str, Any]:
    """A run file: one to three levels and more, uneven, with further links and a case of each kind."""
    builder = _Builder(draw)
    period = draw(st.sampled_from([1, 2, 4, 6, 12]))
    root: dict[str, Any] = {"children": builder.children(draw(st.integers(1, 4)), period, 1)}
    if draw(st.booleans()):
        root["aggregation_s"] = draw(costs())
    topology: dict[str, Any] = {
        "root": root,
        "links": [],
        "routing": draw(st.sampled_from(["tree", "tree", "least_cost"])),
    }
    for _ in range(draw(st.integers(0, 3))):
        one, other = draw(st.sampled_from(builder.names)), draw(st.sampled_from(builder.names))
        if one != other:
            topology["links"].append({"between": [one, other], "profile": draw(links())})
    cases: list[dict[str, Any]] = [{"name": "local", "period": period}]
    cases.append({"name": "H-SGD", "periods": {"root": period, **builder.periods}})
    share = draw(st.sampled_from([1.0, 1.0, 0.5, 0.2]))
    rounds, train = draw(st.integers(1, 4)), {"participation": share}
    skips = draw(st.sampled_from(["no", "no", "all", "named"]))
    if skips != "no":
        shares = {name: draw(st.sampled_from([0.1, 0.7, 1.0])) for name in builder.workers[:2]}
        train["step_probability"] = shares if skips == "named" else 0.5
    return run_data(topology, cases, period * rounds, draw(costs()), **train)


def tied_world(dice: Random) -> dict[str, Any]:
    """Return a world of few whole seconds, so that nearly every barrier is a tie, and in which few take part."""
    workers = [
        {
            "name": f"w{number}",
            "uplink": {"up_s": dice.randint(0, 3), "down_s": {"samples": [dice.randint(0, 6) for _ in range(2)]}},
            "compute": {"step_s": dice.randint(0, 2)},
        }
        for number in range(dice.randint(2, 3))
    ]
    flat = {"root": {"aggregation_s": dice.randint(0, 1), "children": workers}}
    site = {"name": "site", "count": 2, "uplink": {"rtt_s": 2}, "aggregation_s": 1, "children": workers}
    topology, periods = dice.choice([(flat, [1]), ({"root": {"children": [site]}}, [2, 1])])
    return run_data(topology, [{"name": "c", "periods": periods}], 6, participation=dice.choice([0.4, 1.0]))
