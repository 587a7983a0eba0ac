"""What the report of a study shows, as arrays and plain data: nothing here knows HTML or plotly.

Shapes: S scenarios, C cases. Times are seconds; inf means never.
"""

from __future__ import annotations

import contextlib
import math
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hsgd_emu.report.looks import COLOURS, colours
from hsgd_emu.report.study.axes import Axis, make_axis, middle_scenario
from hsgd_emu.results.folder import STUDY_FILE, local_sgd_cases, own_settings_cases
from hsgd_emu.results.wording import target_label
from hsgd_emu.study.sweep.crossover import Crossover
from hsgd_emu.study.sweep.run_study import is_finished
from hsgd_emu.study.sweep.store import StudyResults, connect_to_read, crossovers_of, read_study

if TYPE_CHECKING:
    import pandas as pd

CLOSE = 1.05
"""The first two are as good as equal when the second takes less than this times the first."""

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Case:
    """One case with its look, which is the same everywhere on the page."""

    name: str
    index: int
    colour: str
    dashed: bool
    """Only the global server averages."""


@dataclass(frozen=True)
class Target:
    """One target: when each case reaches it in each scenario."""

    metric: str
    level: float
    label: str
    median_SC: Floats
    low_SC: Floats
    high_SC: Floats
    q10_SC: Floats
    q90_SC: Floats
    best_S: Integers
    """The case of least median; -1 where none reaches the target."""
    second_S: Integers
    margin_S: Floats
    """Second least median / least; inf where no second case reaches the target, nan where none does."""
    probability_S: Floats
    """That the best reaches the target before the second, in matched trials; nan where there are not two."""
    gain_S: Floats
    """Least median of local SGD / of H-SGD; inf or 0 where one kind never does, nan where neither or no such case."""
    crossovers: tuple[Crossover, ...]


@dataclass(frozen=True)
class StudyContent:
    """All that the page says."""

    study: dict[str, Any]
    study_text: str
    environment: dict[str, Any]
    axes: tuple[Axis, ...]
    places_SA: Integers
    """The place of each scenario's value on each axis."""
    cases: tuple[Case, ...]
    seeds: tuple[int, ...]
    trials: tuple[tuple[str, int, str], ...]
    """What was learned: case, seed and the key of the learned trial, each once."""
    diverged: str
    """Which of these diverged, in words; empty: none."""
    num_done: int
    """Scenarios whose times are there."""
    targets: tuple[Target, ...]
    """None until the study is finished."""
    times: Times | None
    """Every trial's own times, of some scenarios where there are very many; None where a case has only one."""

    @property
    def num_scenarios(self) -> int:
        return len(self.places_SA)

    @property
    def both_kinds(self) -> bool:
        """Whether there are cases of local SGD and of H-SGD, and nothing else tells them apart."""
        return len({case.dashed for case in self.cases}) == 2 and not self.own_settings

    @property
    def kinds(self) -> tuple[str, str]:
        """What cases of one level are called, and those of several."""
        return ("one level", "several levels") if self.own_settings else ("local SGD", "H-SGD")

    @property
    def own_settings(self) -> bool:
        """Whether more than schedules tells cases apart: local SGD or H-SGD says too little of them."""
        return bool(own_settings_cases(self.study["run"]))

    @property
    def middle(self) -> int:
        """The scenario that is nearest to the middle of every axis."""
        return middle_scenario(self.axes, self.places_SA)

    def at(self, scenario: int) -> str:
        """Return a scenario in words: `far 0.3 s, near 0.02 s`."""
        return ", ".join(axis.at(place) for axis, place in zip(self.axes, self.places_SA[scenario], strict=True))


def gather(folder: Path) -> StudyContent:
    """Return the content of the report of the study in `folder`. Raises ConfigError where there is none."""
    results = read_study(folder)
    study = results.study
    names = list(dict.fromkeys(results.trials["case"]))
    axes, places_SA = _axes(study["axes"], results.scenarios)
    finished = is_finished(folder)
    targets = _targets(results, names, local_sgd_cases(study["run"]), len(places_SA)) if finished else ()
    levels = [(target.metric, target.level) for target in targets]
    return StudyContent(
        study=study,
        study_text=(folder / STUDY_FILE).read_text(encoding="utf-8"),
        environment=results.environment,
        axes=tuple(axes),
        places_SA=places_SA,
        cases=_cases(names, local_sgd_cases(study["run"]), targets),
        seeds=tuple(int(seed) for seed in dict.fromkeys(results.trials["seed"])),
        trials=tuple(dict.fromkeys(results.trials[["case", "seed", "trial"]].itertuples(index=False, name=None))),
        diverged=results.diverged_in_words(),
        num_done=len(places_SA) if finished else int(results.best["scenario"].nunique()),
        targets=targets,
        times=read_times(folder, axes, places_SA, names, levels),
    )


def _axes(specs: Sequence[Mapping[str, Any]], frame: pd.DataFrame) -> tuple[list[Axis], Integers]:
    num_scenarios = int(frame["scenario"].max()) + 1 if len(frame) else 1
    axes, columns = [], []
    for spec in specs:
        rows = frame[frame["axis"] == spec["name"]].sort_values("scenario")
        values = zip(rows["value"], rows["number"].tolist(), strict=True)
        axis, places = make_axis(spec, [(text, number if number == number else None) for text, number in values])
        axes.append(axis)
        columns.append(places)
    return axes, np.array(columns, np.int64).reshape(len(axes), num_scenarios).T


def _cases(names: Sequence[str], local: Sequence[str], targets: Sequence[Target]) -> tuple[Case, ...]:
    """Return the cases, coloured in order; where there are too many, those that win somewhere come first."""
    order = list(range(len(names)))
    if len(names) > len(COLOURS):
        winners = {int(best) for target in targets for best in np.unique(target.best_S)}
        order.sort(key=lambda index: index not in winners)
    colour = dict(zip(order, colours(len(names)), strict=True))
    return tuple(Case(name, index, colour[index], name in local) for index, name in enumerate(names))


def _targets(
    results: StudyResults, names: Sequence[str], local: Sequence[str], num_scenarios: int
) -> tuple[Target, ...]:
    index = {name: i for i, name in enumerate(names)}
    is_local_C = np.array([name in local for name in names], bool)
    found = []
    for metric, level in results.summary[["metric", "target"]].drop_duplicates().itertuples(index=False):
        summary, best, wins, crossovers = (
            frame[(frame["metric"] == metric) & (frame["target"] == level)]
            for frame in (results.summary, results.best, results.wins, results.crossovers)
        )
        at = (summary["scenario"].to_numpy(), summary["case"].map(index).to_numpy())
        table = {
            name: _filled((num_scenarios, len(names)), np.inf, at, summary[f"{name}_s"])
            for name in ("median", "low", "high", "q10", "q90")
        }
        best_S = np.full(num_scenarios, -1)
        best_S[best["scenario"].to_numpy()] = best["case"].map(index).to_numpy()
        margin_S = _filled((num_scenarios,), np.nan, (best["scenario"].to_numpy(),), best["margin"].fillna(np.inf))
        second_S = _second(table["median"], best_S)
        found.append(
            Target(
                metric=str(metric),
                level=float(level),
                label=target_label(str(metric), float(level)),
                **{f"{name}_SC": values for name, values in table.items()},
                best_S=best_S,
                second_S=second_S,
                margin_S=margin_S,
                probability_S=_probability(wins, index, best_S, second_S),
                gain_S=_gain(table["median"], is_local_C),
                crossovers=crossovers_of(crossovers),
            )
        )
    return tuple(found)


def _filled(shape: tuple[int, ...], nothing: float, at: tuple[Any, ...], values: pd.Series[float]) -> Floats:
    array = np.full(shape, nothing)
    known = values.to_numpy(np.float64)
    array[at] = np.where(np.isnan(known), nothing, known)
    return array


def _second(median_SC: Floats, best_S: Integers) -> Integers:
    """Return the case of second least median, or -1; ties stay in case order."""
    others_SC = median_SC.copy()
    rows = np.arange(len(best_S))
    others_SC[rows[best_S >= 0], best_S[best_S >= 0]] = np.inf
    if others_SC.shape[1] == 0:
        return np.full(len(best_S), -1)
    second_S = others_SC.argmin(axis=1)
    return np.where(np.isfinite(others_SC[rows, second_S]) & (best_S >= 0), second_S, -1)


def _probability(wins: pd.DataFrame, index: Mapping[str, int], best_S: Integers, second_S: Integers) -> Floats:
    scenario = wins["scenario"].to_numpy()
    case, other = (wins[name].map(index).to_numpy() for name in ("case", "other"))
    asked = (best_S[scenario] == case) & (second_S[scenario] == other)
    probability_S = np.full(len(best_S), np.nan)
    probability_S[scenario[asked]] = wins["probability"].to_numpy()[asked]
    return probability_S


def _gain(median_SC: Floats, is_local_C: NDArray[np.bool_]) -> Floats:
    if is_local_C.all() or not is_local_C.any():
        return np.full(len(median_SC), np.nan)
    local_S, other_S = median_SC[:, is_local_C].min(axis=1), median_SC[:, ~is_local_C].min(axis=1)
    # inf / inf is nan, which says what is meant; a time of 0 is no time to target.
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(local_S / other_S)


# --- every trial's own times ------------------------------------------------------------------------

MOST_SCENARIOS = 300
MOST_TIMES = 150_000
"""Over scenarios, targets and cases: each is ten characters of the page."""
FEW_SCENARIOS = 6
"""Shown, the middle one first, where not all can be."""


@dataclass(frozen=True)
class Times:
    """Times to target, trial by trial. Shapes: T targets, S scenarios, C cases, N trials of one case (seed by seed).

    scenarios: those that are here, in order; trials: (seed, replication) of each of the N.
    times_TSCN: seconds, inf = never.
    """

    scenarios: tuple[int, ...]
    trials: tuple[tuple[int, int], ...]
    times_TSCN: NDArray[np.float64]

    @property
    def never_TSC(self) -> NDArray[np.float64]:
        """The share of each case's trials that never reach the target."""
        return np.asarray(np.isinf(self.times_TSCN).mean(axis=-1))

    @property
    def num_seeds(self) -> int:
        return len({seed for seed, _ in self.trials})

    @property
    def num_replications(self) -> int:
        return len({replication for _, replication in self.trials})


def read_times(
    folder: Path,
    axes: Sequence[Axis],
    places_SA: NDArray[np.int64],
    cases: Sequence[str],
    targets: Sequence[tuple[str, float]],
) -> Times | None:
    """Return the times of all scenarios, or of the middle one and the first few where there are too many.

    None where a case has a single time per scenario: that is no distribution.
    """
    if not targets:
        return None
    with contextlib.closing(connect_to_read(folder)) as connection:
        query = "SELECT seed, replication FROM times WHERE scenario = 0 GROUP BY 1, 2 ORDER BY min(rowid)"
        trials = tuple(connection.execute(query))
        if len(trials) < 2:
            return None
        num = len(targets) * len(cases) * len(trials)
        most = min(MOST_TIMES // num, MOST_SCENARIOS)
        scenarios = chosen(middle_scenario(axes, places_SA), len(places_SA), most)
        return Times(scenarios, trials, _read(connection, scenarios, trials, cases, targets))


def chosen(middle: int, num: int, most: int) -> tuple[int, ...]:
    """Return all of `num` scenarios, in order, or the middle one and the first few where they are more than `most`."""
    if num <= most:
        return tuple(range(num))
    first = [scenario for scenario in range(FEW_SCENARIOS) if scenario != middle]
    return (middle, *first[: max(min(most, FEW_SCENARIOS) - 1, 0)])


def _read(
    connection: sqlite3.Connection,
    scenarios: Sequence[int],
    trials: Sequence[tuple[int, int]],
    cases: Sequence[str],
    targets: Sequence[tuple[str, float]],
) -> NDArray[np.float64]:
    wheres = [{key: i for i, key in enumerate(keys)} for keys in (targets, scenarios, cases, trials)]
    times_TSCN = np.full([len(where) for where in wheres], math.inf)
    marks = ",".join("?" * len(scenarios))
    rows = connection.execute(
        'SELECT metric, target, scenario, "case", seed, replication, time_s FROM times '
        f"WHERE time_s IS NOT NULL AND scenario IN ({marks})",
        scenarios,
    )
    for metric, target, scenario, case, seed, replication, time_s in rows:
        keys = ((metric, target), scenario, case, (seed, replication))
        times_TSCN[tuple(where[key] for where, key in zip(wheres, keys, strict=True))] = time_s
    return times_TSCN
