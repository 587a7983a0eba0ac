"""Which constants of a network explain measured times? Least squares, and what the times do not determine."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsgd_emu.config.schema import LinkProfile
from hsgd_emu.engine.schedule import Schedule
from hsgd_emu.errors import ConfigError, listed, nearest
from hsgd_emu.experiment import Experiment
from hsgd_emu.results.summary import median_reached
from hsgd_emu.results.wording import in_one_line
from hsgd_emu.rng import stream
from hsgd_emu.study.costs import ChangedCost, bound_cost, profile_costs, rebound
from hsgd_emu.study.finished import FinishedRun, finished_run, global_times_ns
from hsgd_emu.study.fitting.result import Combination, Fit, FittedRow, FittedValue
from hsgd_emu.study.fitting.table import Measured, published_rows, read_table
from hsgd_emu.timing.costs import Cost
from hsgd_emu.timing.transfers import Transfer, transfer_of
from hsgd_emu.units import LONGEST_S, NS_PER_S, TIME, number

Nanoseconds_SP = NDArray[np.int64]
Floats = NDArray[np.float64]
_STEP = 0.01  # relative step of the derivatives: times are straight lines in the constants, but for kinks


def expected_s(run: FinishedRun, cost: ChangedCost) -> float:
    """Return what an exchange or a step of a profile is expected to take, seconds."""
    bound = bound_cost(run.experiment, cost)
    return bound.expected_ns(run.message) / NS_PER_S if isinstance(bound, Transfer) else bound.expected_s


@dataclass(frozen=True)
class Model:
    """The rows' times when the unknown profiles are constants and all else is constant too.

    Exact for the synchronous schedules: the SimPy engine's and the fast clock's times, routes found anew for every
    set of constants. Random costs are taken at their expectation.
    """

    run: FinishedRun
    rows: Sequence[Measured]
    base: Experiment
    unknown: Sequence[ChangedCost]

    @classmethod
    def of(cls, run: FinishedRun, rows: Sequence[Measured], fixed: Mapping[str, float]) -> Model:
        """Return the model in which what `fixed` names is no unknown.

        Whatever link a route may take is unknown: which it takes depends on the constants.
        """
        costs, network = profile_costs(run.experiment), run.experiment.network
        aggregations = {server: cost.at_expectation() for server, cost in network.aggregations.items()}
        base = replace(run.experiment, network=replace(network, aggregations=aggregations))
        values_s = {cost: fixed.get(cost.name, expected_s(run, cost)) for cost in costs}
        base = rebound(base, {cost: _constant(run, cost, value_s) for cost, value_s in values_s.items()})
        return cls(run, rows, base, [cost for cost in costs if cost.name not in fixed])

    def up_share(self, cost: ChangedCost) -> float | None:
        """Return the share of an unknown RTT that goes up, None: half of it."""
        bound = bound_cost(self.base, cost)
        return bound.up_share(self.run.message) if isinstance(bound, Transfer) else None

    def times_ns(self, values_ns_SP: Nanoseconds_SP) -> Floats:
        """Return the rows' times under S sets of constants: (S, rows), nanoseconds."""
        experiments = [self._experiment(values_ns) for values_ns in values_ns_SP]
        found = np.empty((len(experiments), len(self.rows)))
        for schedule in self.run.experiment.schedules:
            places = [place for place, row in enumerate(self.rows) if row.case == schedule.name]
            if places:
                found[:, places] = self._times_of(experiments, schedule, [self.rows[place] for place in places])
        return found

    def times_and_counts(self, values_ns: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Return the rows' times, and how many times each pays each unknown: (rows,) nanoseconds, (rows, unknowns).

        The constants are whole nanoseconds, as the clock has them, so that the counts are exact away from kinks.
        """
        steps = np.maximum(1, np.rint(values_ns * _STEP).astype(np.int64))
        times_ns = self.times_ns(np.vstack([values_ns, values_ns + np.diag(steps)]))
        return times_ns[0], (times_ns[1:] - times_ns[0]).T / steps

    def _experiment(self, values_ns: NDArray[np.int64]) -> Experiment:
        values = zip(self.unknown, (values_ns / NS_PER_S).tolist(), strict=True)
        return rebound(self.base, {cost: _constant(self.run, cost, value_s) for cost, value_s in values})

    def _times_of(self, experiments: Sequence[Experiment], schedule: Schedule, rows: Sequence[Measured]) -> Floats:
        """Return the times of rows of one case: (S, rows)."""
        seeds = self.run.experiment.seeds
        last = max(at or 0 for row in rows for at in row.reached.values())
        # Where all take part, every round after the first is alike: all begins when the global server sends down.
        skips = self.run.experiment.effects(schedule.name).step_probability
        alike = schedule.participation >= 1 and schedule.rounds_are_alike and not skips
        if alike:
            seeds, last = seeds[:1], min(last, schedule.end_of(2))
        times_ns = global_times_ns(self.run, experiments, schedule, seeds, last)

        def at(place: int, seed: int, iteration: int | None) -> float | None:
            if iteration is None:
                return None
            number = schedule.num_rounds(iteration)
            if not alike:
                return int(times_ns[place, seeds.index(seed), number - 1])
            first, step = int(times_ns[place, 0, 0]), int(times_ns[place, 0, -1] - times_ns[place, 0, 0])
            return first + (number - 1) * step

        medians = [
            [median_reached([at(place, seed, iteration) for seed, iteration in row.reached.items()]) for row in rows]
            for place in range(len(experiments))
        ]
        return np.array(medians, np.float64)


def _constant(run: FinishedRun, cost: ChangedCost, value_s: float) -> Transfer | Cost:
    """Return the constant cost `value_s`, split over up and down as what it stands for is expected to be."""
    bound = bound_cost(run.experiment, cost)
    if isinstance(bound, Cost):
        return Cost(value_s)
    return transfer_of(LinkProfile(rtt_s=value_s, up_share=bound.up_share(run.message)))


def measured_ns(model: Model) -> Floats:
    """Return the times that the rows were measured to take: (rows,) nanoseconds."""
    return np.array([row.time_s for row in model.rows]) * NS_PER_S


_NUM_DRAWN, _NUM_KEPT = 40, 3  # starts drawn at random, and how many of them are followed


def fit(
    folder: Path | str,
    table: Path | str | None = None,
    fixed: Mapping[str, float] | None = None,
    bounds: tuple[float, float] = (1e-6, 1e4),
) -> Fit:
    """Return the constants under which the cases of a run take the times in a table.

    Unknown: the RTT of each link profile (of one message of this run's size) and the step time of each compute
    profile; all at once, by least squares on ln(model / measured), in ln of the constants, from several starts. The
    model is the clock itself, routes found anew. Intervals: 95%, from the derivatives at the solution and the wider of
    the residuals (t distribution; each time off by a like percentage, independently) and the rounding of the times (to
    the last digit that any of them has).
    Not modelled: how costs vary (aggregations, and what is random, are taken at their expectation).

    Args:    table: a file (default: the run's published times, without those whose target it did not reach).
             fixed: seconds by profile name, for what is known (beside what is published as known).
             bounds: of the unknowns, seconds.
    Raises:  ConfigError: mistakes in the table; a name that is no profile; the run did not reach a target of the table,
             or has neither a table nor published times.
    """
    run, fixed = finished_run(folder), dict(fixed or {})
    _check_fixed(run.experiment, fixed, "--fix ")
    if table is not None:
        return _fit(Model.of(run, read_table(Path(table), run), fixed), fixed, bounds, Path(table).name)
    rows, left_out = published_rows(run)
    published = run.experiment.published
    assert published is not None
    _check_fixed(run.experiment, published.known, "published.known: ")
    name, fixed = in_one_line(published.source), published.known | fixed
    return replace(_fit(Model.of(run, rows, fixed), fixed, bounds, name), left_out=tuple(left_out))


def _fit(model: Model, fixed: Mapping[str, float], bounds: tuple[float, float], name: str) -> Fit:
    """Return the fit of a model's unknowns; name: of what its rows are taken from."""
    if not model.unknown:
        raise ConfigError.of("--fix", "", "nothing is left to fit: every profile is fixed")
    run = model.run
    names = [cost.name for cost in model.unknown]
    solutions = _solve(model, np.array([expected_s(run, cost) for cost in model.unknown]), bounds)
    best = solutions[0][1]
    times_ns, counts = model.times_and_counts(_whole_ns(best))
    combinations, determined = determined_by(counts, best, names)
    other = _another(solutions, determined)
    low_s, high_s, correlation, freedom = intervals(model, best, times_ns, counts, determined)
    values = [
        FittedValue(cost, model.up_share(cost), float(best[p]), low_s[p], high_s[p], bool(determined[p]))
        for p, cost in enumerate(model.unknown)
    ]
    rows = [FittedRow(row, float(time_s)) for row, time_s in zip(model.rows, times_ns / NS_PER_S, strict=True)]
    return Fit(
        table=name,
        values=tuple(values),
        rows=tuple(rows),
        combinations=combinations,
        correlation=correlation,
        fixed=dict(fixed),
        other=None if other is None else dict(zip(names, map(float, other), strict=True)),
        freedom=freedom,
        message_bytes=run.message_bytes,
    )


def parse_fixed(texts: Sequence[str]) -> dict[str, float]:
    """Return the constants that NAME=SECONDS texts fix.

    Raises:  ConfigError: not of this form, or no number of seconds.
    """
    fixed: dict[str, float] = {}
    for text in texts:
        # A name may have '=' in it, a number has none.
        name, _, seconds = (part.strip() for part in text.rpartition("="))
        if not name or not seconds:
            raise ConfigError.of(f"--fix {text}", "", "expected NAME=SECONDS, as in compute=0.004")
        try:
            fixed[name] = number(seconds, TIME)
        except ValueError as error:
            raise ConfigError.of(f"--fix {text}", "", str(error)) from None
        if not 0 <= fixed[name] <= LONGEST_S:
            raise ConfigError.of(f"--fix {text}", "", f"found '{seconds}'; expected a number of seconds of at least 0")
    return fixed


def _check_fixed(experiment: Experiment, fixed: Mapping[str, float], where: str) -> None:
    known = [cost.name for cost in profile_costs(experiment)]
    for name, value_s in fixed.items():
        label = f"{where}{name}={value_s:g}"
        if name not in known:
            hint = nearest(name, known) or f"; it has {listed(known)}"
            raise ConfigError.of(label, "", f"the run has no profile '{name}'{hint}")
        if not 0 <= value_s <= LONGEST_S:
            raise ConfigError.of(label, "", f"found {value_s:g}; expected a number of seconds of at least 0")


# --- least squares ------------------------------------------------------------------------------------


def _whole_ns(values_s: Floats) -> NDArray[np.int64]:
    return np.rint(values_s * NS_PER_S).astype(np.int64)


def _solve(model: Model, own_s: Floats, bounds: tuple[float, float]) -> list[tuple[float, Floats]]:
    """Return (sum of squares, constants in seconds) that the starts led to, the best first."""
    from scipy.optimize import least_squares

    low, high = np.log(bounds)
    options: Any = {"bounds": (low, high), "xtol": 1e-12, "ftol": 1e-12, "gtol": 1e-12, "max_nfev": 100}
    found = []
    for start in _starts(model, own_s):
        point = _Point(model)
        x = np.clip(np.log(start), low + 1e-6, high - 1e-6)
        result = least_squares(point.residuals, x, point.jacobian, **options)
        found.append((float(2 * result.cost), np.exp(result.x)))
    least = min(squares for squares, _ in found)
    # Of several that are as good the one whose start comes first: nearest to what the run has.
    return sorted(found, key=lambda solution: not _as_good(solution[0], least))


class _Point:
    """ln(model / measured) and its derivatives in ln of the constants; both cost the clock one call."""

    def __init__(self, model: Model) -> None:
        self.model, self.x = model, np.empty(0)

    def residuals(self, x: Floats) -> Floats:
        self._go_to(x)
        return np.asarray(np.log(self.times_ns / measured_ns(self.model)))

    def jacobian(self, x: Floats) -> Floats:
        self._go_to(x)
        return self.counts * self.values_ns / self.times_ns[:, None]

    def _go_to(self, x: Floats) -> None:
        if not np.array_equal(x, self.x):
            self.x, self.values_ns = x.copy(), _whole_ns(np.exp(x))
            times_ns, self.counts = self.model.times_and_counts(self.values_ns)
            self.times_ns = np.maximum(times_ns, 1)


def _starts(model: Model, own_s: Floats) -> list[Floats]:
    """Return the run's own constants, then all alike and the best of many drawn around that, each scaled as a whole
    to the table's times."""
    drawn = 10 ** stream(0, "fit starts").uniform(-2, 2, (_NUM_DRAWN, len(own_s)))
    tried = np.vstack([np.maximum(own_s, 1e-6), np.ones(len(own_s)), drawn])
    ratios = np.log(np.maximum(model.times_ns(_whole_ns(tried)), 1) / measured_ns(model))
    whole = np.median(ratios, axis=1, keepdims=True)
    scaled, squares = tried / np.exp(whole), np.sum((ratios - whole) ** 2, axis=1)
    best = 2 + np.argsort(squares[2:], kind="stable")[:_NUM_KEPT]
    return [tried[0], scaled[0], scaled[1], *scaled[best]]


def _as_good(squares: float, least: float) -> bool:
    return squares <= 1.05 * least + 1e-10


def _another(solutions: Sequence[tuple[float, Floats]], determined: NDArray[np.bool_]) -> Floats | None:
    """Return a solution that explains the times as well as the first and is another one, or None."""
    squares, best = solutions[0]
    for other_squares, other in solutions[1:]:
        if _as_good(other_squares, squares) and bool(np.any(np.abs(np.log(other / best))[determined] > 0.01)):
            return other
    return None


SMALL = 1e-6
"""Counts this small against a row's largest are rounding."""


def determined_by(
    counts: Floats, values_s: Floats, names: Sequence[str]
) -> tuple[tuple[Combination, ...], NDArray[np.bool_]]:
    """Return the sums of several unknowns that alone are determined, and for each unknown whether it is by itself.

    The rows' counts, reduced as a system of linear equations: a reduced row with one entry determines one unknown.
    """
    reduced = _reduced(counts)
    alone = [row for row in reduced if np.count_nonzero(row) == 1]
    determined = np.any(np.array(alone) != 0, axis=0) if alone else np.zeros(len(names), bool)
    together = [row for row in reduced if np.count_nonzero(row) > 1]
    combinations = [
        Combination({name: float(num) for name, num in zip(names, row, strict=True) if num}, float(row @ values_s))
        for row in together
    ]
    return tuple(combinations), determined


def _reduced(rows: Floats) -> list[Floats]:
    """Return the nonzero rows of the reduced row echelon form."""
    rest = [row / np.abs(row).max() for row in rows if np.abs(row).max() > 0]
    done: list[Floats] = []
    for column in range(rows.shape[1]):
        if not rest:
            break
        pivot = max(range(len(rest)), key=lambda place: abs(rest[place][column]))
        if abs(rest[pivot][column]) <= SMALL:
            continue
        row = rest.pop(pivot)
        row = row / row[column]
        rest = [_cleaned(other - other[column] * row) for other in rest]
        done = [_cleaned(other - other[column] * row) for other in done] + [row]
    return done


def _cleaned(row: Floats) -> Floats:
    return np.where(np.abs(row) <= SMALL, 0.0, row)


def intervals(
    model: Model, values_s: Floats, times_ns: Floats, counts: Floats, determined: NDArray[np.bool_]
) -> tuple[list[float | None], list[float | None], Floats, int]:
    """Return the ends of the 95% intervals (None: not determined), the unknowns' correlations, and how many more times
    there are than constants they determine."""
    from scipy.stats import t as student

    times_ns, asked_ns = np.maximum(times_ns, 1), measured_ns(model)
    residuals = np.log(times_ns / asked_ns)
    # Columns of one length: a constant that is nearly 0 is not taken for one that no time depends on.
    slopes = counts / times_ns[:, None]
    lengths = np.linalg.norm(slopes, axis=0)
    lengths = np.where(lengths > 0, lengths, 1.0)
    half = np.linalg.pinv(slopes / lengths, rcond=SMALL)
    inverse = half @ half.T
    deviation = np.sqrt(np.diag(inverse))
    scale = np.where(deviation > 0, deviation, 1.0)
    correlation = inverse / scale[:, None] / scale
    freedom = len(residuals) - int(np.linalg.matrix_rank(slopes / lengths, SMALL))
    # Measured times vary, and they are rounded: the wider of the two intervals.
    exponents = [Decimal(repr(row.time_s)).normalize().as_tuple().exponent for row in model.rows]
    # The unit of the last digit that the times are given with, at most a second.
    resolution_s = 10.0 ** min(0, *(exponent for exponent in exponents if isinstance(exponent, int)))
    rounding = resolution_s / math.sqrt(12) * NS_PER_S / asked_ns
    deviation_s = 1.96 * np.sqrt(half**2 @ rounding**2)
    if freedom > 0:
        spread = math.sqrt(float(residuals @ residuals) / freedom)
        deviation_s = np.maximum(deviation_s, student.ppf(0.975, freedom) * spread * deviation)
    width = deviation_s / lengths / (values_s * NS_PER_S)
    # Where the interval is wide, the straight one: the logarithm of what may as well be 0 says nothing.
    narrow = np.minimum(width, 1.0)
    low = np.where(width < 1, values_s * np.exp(-narrow), np.maximum(0, values_s * (1 - width)))
    high = np.where(width < 1, values_s * np.exp(narrow), values_s * (1 + width))
    ends = [[float(v) if d else None for v, d in zip(end, determined, strict=True)] for end in (low, high)]
    return ends[0], ends[1], correlation, freedom
