"""Which learning rate suits each case of a run file: the time to a target with multiples of the rate that it has.

    python benchmarks/rates.py runs/algorithms.yaml --target 0.8 --seeds 11 12     # other seeds than the file's

What is multiplied is the rate of the case's global server where its optimizer is one of the Adams, else the workers'.
The best is the least time to the target (upper median of the seeds); where no rate reaches it, the highest final
accuracy.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

import hsgd_emu


def with_rate(case: dict[str, Any], factor: float, usual: float) -> dict[str, Any]:
    """Return a case with a multiple of its rate; usual is the rate of workers in cases without one of their own."""
    case = deepcopy(case)
    server = case.get("servers", {}).get("root", {})
    if server.get("optimizer") in ("adam", "yogi", "adagrad"):
        server["learning_rate"] *= factor
        return case
    train = case.setdefault("train", {})
    rate = train.get("learning_rate", usual)
    key = {**rate, "initial": rate["initial"] * factor} if isinstance(rate, dict) else rate * factor
    return {**case, "train": {**train, "learning_rate": key}}


def measured(path: Path, factors: Sequence[float], target: float, sets: Sequence[str]) -> str:
    """Return a table in Markdown: a row for each case, a column for each multiple."""
    run = yaml.safe_load(path.read_text(encoding="utf-8"))
    cases = [
        with_rate(case, factor, run["train"]["learning_rate"]) | {"name": f"{case['name']} x{factor:g}"}
        for case in run["cases"]
        for factor in factors
    ]
    sets = [f"targets={{test_accuracy: [{target}]}}", *sets, f"cases={json.dumps(cases)}"]
    with tempfile.TemporaryDirectory() as folder:
        results = hsgd_emu.run(path, out=Path(folder) / "run", sets=sets, threads=1)
        times = results.targets.set_index("case").time_s.astype(float).fillna(math.inf).groupby("case", sort=False)
        reached = times.quantile(0.5, interpolation="higher")
        final = results.curve.groupby(["case", "seed"]).test_accuracy.last().groupby("case").median()
    rows = [["case", *(f"x{factor:g}" for factor in factors)], ["---", *("--:" for _ in factors)]]
    for case in run["cases"]:
        names = [f"{case['name']} x{factor:g}" for factor in factors]
        best = min(names, key=lambda name: (reached[name], -final[name]))
        told = [f"{reached[name]:.3g} s" if reached[name] < math.inf else f"({final[name]:.1%})" for name in names]
        rows.append(
            [case["name"], *(f"**{text}**" if name == best else text for name, text in zip(names, told, strict=True))]
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--target", type=float, required=True, help="test accuracy")
    parser.add_argument("--seeds", type=int, nargs="+", default=[11, 12])
    parser.add_argument("--factors", type=float, nargs="+", default=[0.25, 0.5, 1, 2, 4])
    parser.add_argument("--set", dest="sets", action="append", default=[], metavar="KEY=VALUE")
    args = parser.parse_args()
    print(measured(args.run, args.factors, args.target, [*args.sets, f"seeds={args.seeds}"]))


if __name__ == "__main__":
    main()
