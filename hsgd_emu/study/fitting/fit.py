"""Which constants of a network explain measured times? Least squares, and what the times do not determine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsgd_emu.errors import ConfigError, listed, nearest
from hsgd_emu.experiment import Experiment
from hsgd_emu.results.wording import in_one_line
from hsgd_emu.rng import stream
from hsgd_emu.study.costs import profile_costs
from hsgd_emu.study.finished import finished_run
from hsgd_emu.study.fitting.certainty import determined_by, intervals
from hsgd_emu.study.fitting.model import Floats, Model, expected_s, measured_ns
from hsgd_emu.study.fitting.result import Fit, FittedRow, FittedValue
from hsgd_emu.study.fitting.table import published_rows, read_table
from hsgd_emu.units import LONGEST_S, NS_PER_S, TIME, number

_NUM_DRAWN, _NUM_KEPT = 40, 3
"""Starts drawn at random, and how many of them are followed."""


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
