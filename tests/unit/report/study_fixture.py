"""Studies written by hand, whose answers can be worked out in the head.

Time to 80%: local SGD `P=5` takes 10 far, H-SGD `G=50 I=5` takes 2 far + 16 near (times the step where there is one):
they are equal at far = 2 near. `P=50` never reaches it. To 50% H-SGD always takes half of local SGD.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import permutations, product
from pathlib import Path
from typing import Any

import yaml

from hsgd_emu.study.sweep.store import StudyStore

LOCAL, HSGD, NEVER = "P=5", "G=50 I=5", "P=50"
EASY, HARD = ("test_accuracy", 0.5), ("test_accuracy", 0.8)
SPECS: dict[str, dict[str, Any]] = {
    "far": {"rtt_s": "far", "spacing": "log"},
    "near": {"rtt_s": "near", "spacing": "log"},
    "step": {"set": "compute.step_s"},
    "link": {"profile": "far"},
    "slower": {"scale": "far"},
}
Values = Mapping[str, Any]
Row = tuple[Any, ...]


def grid(**values: Sequence[Any]) -> list[dict[str, Any]]:
    return [dict(zip(values, at, strict=True)) for at in product(*values.values())]


def medians_s(values: Values, target: tuple[str, float], cases: Sequence[str]) -> list[float | None]:
    """By case: local SGD, H-SGD, the one that never gets there, and others that are far slower."""
    far, near = float(values.get("far", 1)), float(values.get("near", 1))
    local, hsgd = 10 * far, 2 * far + 16 * near if target == HARD else 5 * far
    return [local, hsgd, None, *(1000.0 + i for i in range(len(cases) - 3))][: len(cases)]


def make_study(
    folder: Path,
    scenarios: Sequence[Values],
    *,
    cases: Sequence[str] = (LOCAL, HSGD, NEVER),
    finished: bool = True,
    targets: Sequence[tuple[str, float]] = (EASY, HARD),
    crossovers: Sequence[Row] = (),
    spread: float = 0.0,
    never: Sequence[str] = (),
    unreached: Sequence[int] = (),
    chance: Sequence[float | None] = (),
    name: str = "far_near",
    specs: Mapping[str, dict[str, Any]] | None = None,
) -> Path:
    """Write a study. spread: quantiles lie this share off the median.  never: cases that reach no target.
    unreached: scenarios in which none reaches the hard one.  chance: each replication's time to the median, of both
    seeds; None: never.
    """
    axes = list(scenarios[0])
    run = {
        "name": "demo",
        "cases": [_case(case) for case in cases],
        "targets": {"test_accuracy": [t for _, t in targets]},
    }
    study = {
        "name": name,
        "run": run,
        "axes": [{"name": axis, **(specs or SPECS)[axis]} for axis in axes],
        "replications": 1,
    }
    rows: dict[str, list[Row]] = {"times": [], "summary": [], "best": [], "wins": [], "crossovers": list(crossovers)}
    for number, values in enumerate(scenarios):
        for target in targets:
            times_s = medians_s(values, target, cases)
            known = {c: t for c, t in zip(cases, times_s, strict=True) if t is not None and c not in never}
            known = {} if target == HARD and number in unreached else known
            _outcome(rows, number, target, cases, known, spread)
            rows["times"] += [
                (number, case, seed, replication, *target, *_chance(known.get(case), factor))
                for case in cases
                for seed in (1, 2)
                for replication, factor in enumerate(chance)
            ]
    begun = {
        "scenarios": [
            (number, axis, str(value), float(value) if isinstance(value, int | float) else None)
            for number, values in enumerate(scenarios)
            for axis, value in values.items()
        ],
        "trials": [(n, case, seed, "key") for n in range(len(scenarios)) for case in cases for seed in (1, 2)],
    }
    with StudyStore.create(folder, yaml.safe_dump(study, sort_keys=False), {"python": "3.11"}, begun) as store:
        if finished:
            store.write_part("crossovers", rows)
        else:
            store.write_part("scenarios 0 to 1", {"best": [row for row in rows["best"] if row[0] < 2]})
        store.finish()
    return folder


def _case(name: str) -> dict[str, Any]:
    return {"name": name, "periods": [50, 5]} if name.startswith("G") else {"name": name, "period": 5}


def _chance(median_s: float | None, factor: float | None) -> Row:
    """Return time_s, iteration, communication_s and compute_s."""
    return (None,) * 4 if median_s is None or factor is None else (median_s * factor, 100, 1.0, 1.0)


def _outcome(
    rows: dict[str, list[Row]],
    number: int,
    target: tuple[str, float],
    cases: Sequence[str],
    known: Mapping[str, float],
    spread: float,
) -> None:
    for case in cases:
        t = known.get(case)
        low, high = (None, None) if t is None else (t * (1 - spread), t * (1 + spread))
        rows["summary"].append((number, case, *target, 2, 0 if t is None else 2, t, low, high, low, high))
    order = sorted(known, key=lambda case: known[case])
    if order:
        margin = known[order[1]] / known[order[0]] if len(order) > 1 else None
        rows["best"].append((number, *target, order[0], margin))
    for one, other in permutations(cases, 2):
        rows["wins"].append((number, *target, one, other, 0.75))


def crossover(axis: str, fixed: Values, below: str, above: str, value: float) -> Row:
    return (*HARD, axis, json.dumps(fixed), below, above, value)


FAR, NEAR = (1, 4, 16), (1, 4)
"""Along far the two are equal at 2 (near 1) and at 8 (near 4); along near at 2 (far 4)."""
CROSSOVERS = (
    crossover("far", {"near": 1}, LOCAL, HSGD, 2.0),
    crossover("far", {"near": 4}, LOCAL, HSGD, 8.0),
    crossover("near", {"far": 4}, HSGD, LOCAL, 2.0),
)


def far_near(folder: Path, **options: Any) -> Path:
    return make_study(folder, grid(far=FAR, near=NEAR), crossovers=CROSSOVERS, **options)
