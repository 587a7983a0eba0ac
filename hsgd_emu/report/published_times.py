"""Published times with what our trials say of them: the same cases' own times, and a network fitted to them.

The fit is `hsgd_emu.study.fitting.fit`: which RTTs and step times explain the published times, given at which iteration
our trials reached the same targets?
"""

from __future__ import annotations

from dataclasses import dataclass

from hsgd_emu.config.run_schema import PublishedTime
from hsgd_emu.errors import ConfigError
from hsgd_emu.experiment import Experiment
from hsgd_emu.report.content import Case, Content, Run
from hsgd_emu.results.summary import mean, middle
from hsgd_emu.results.wording import in_one_line, target_label
from hsgd_emu.study.costs import profile_costs
from hsgd_emu.study.finished import finished_run
from hsgd_emu.study.fitting.fit import fit
from hsgd_emu.study.fitting.result import Fit, FittedRow
from hsgd_emu.study.fitting.table import published_rows

_MOST_WORK = 250
"""Links times cases of which a fit takes about two seconds; a longer one is left to `hsgd-emu fit`."""
Subject = tuple[str, str | None, float | None, int | None]
"""What a published time is of: case, metric and target, or iterations."""


@dataclass(frozen=True)
class Row:
    """One published time. ours_s, iterations: medians over seeds, None where the case did not reach the target."""

    case: Case
    time: PublishedTime
    ours_s: float | None
    iterations: float | None
    fitted: FittedRow | None

    @property
    def until(self) -> str:
        """What the time is until, in words."""
        if self.time.metric is None or self.time.target is None:
            return f"{self.time.iterations:,} iterations"
        return target_label(self.time.metric, self.time.target)

    @property
    def fitted_s(self) -> float | None:
        return None if self.fitted is None else self.fitted.fitted_s

    def seconds(self, column: str) -> float | None:
        """Return the value of one of the series."""
        if column == "published_s":
            return self.time.time_s
        return self.ours_s if column == "ours_s" else self.fitted_s


@dataclass(frozen=True)
class Beside:
    """One run's published times. fit: None where there is none; `why_not` says why."""

    run: Run
    source: str
    rows: tuple[Row, ...]
    fit: Fit | None
    why_not: str

    @property
    def can_be_drawn(self) -> bool:
        return any(row.ours_s is not None or row.fitted is not None for row in self.rows)


def beside(content: Content, run: Run) -> Beside | None:
    """Return a run's published times, or None where it has none."""
    if run.experiment is None or run.experiment.published is None:
        return None
    spec = run.experiment.published
    cases = {case.own_name: case for case in content.cases if case.run is run}
    fitted, why_not = _fitted(run, run.experiment)
    by_subject = {_subject_of(row): row for row in fitted.rows} if fitted else {}
    rows = [
        Row(cases[time.case], time, *_ours(cases[time.case], time), by_subject.get(_subject(time)))
        for time in spec.times
    ]
    return Beside(run, in_one_line(spec.source), tuple(rows), fitted, why_not)


def _subject(time: PublishedTime) -> Subject:
    return time.case, time.metric, time.target, time.iterations


def _subject_of(row: FittedRow) -> Subject:
    measured = row.measured
    if measured.target is None:
        return measured.case, None, None, next(iter(measured.reached.values()))
    return measured.case, *measured.target, None


def _ours(case: Case, time: PublishedTime) -> tuple[float | None, float | None]:
    """Return seconds and iterations of a case where its published time was taken; none where it did not get there."""
    if time.iterations is not None:
        curves = case.seeds.values()
        rows = [next((row for row in curve if row.iteration == time.iterations), None) for curve in curves]
        return mean(middle(rows), "time_s"), time.iterations
    targets = case.summary.targets
    found = next((one for one in targets if (one.metric, one.target) == (time.metric, time.target)), None)
    return (found.median_time_s, found.median_iterations) if found else (None, None)


def _fitted(run: Run, experiment: Experiment) -> tuple[Fit | None, str]:
    """Return the constants fitted to the published times, or why there are none."""
    known = experiment.published.known if experiment.published else {}
    num_unknown = sum(cost.name not in known for cost in profile_costs(experiment))
    try:
        num_compared = len(published_rows(finished_run(run.folder))[0])
        if num_compared < num_unknown:
            text = f"{counted(num_compared)} can be compared, and the network has {num_unknown} unknown constants"
            return None, f"Nothing is fitted: only {text}."
        if not _is_quick(experiment):
            return None, "Fitting a network to them takes a while here: `hsgd-emu fit RUN_DIR` does it."
        return fit(run.folder), ""
    except ConfigError as error:
        said = error.problems[0].message
        # Of the folder, which stands before it elsewhere.
        return None, f"Nothing is fitted: {'the run ' if said.startswith('was ') else ''}{said}."
    except (ValueError, ArithmeticError) as error:
        # What the numerics may raise; without a fit the page is as good in all else.
        return None, f"Nothing is fitted: {error}."


def _is_quick(experiment: Experiment) -> bool:
    """Tell whether a fit takes about two seconds at most; by what there is to do, so that a page is always the same."""
    # Where only some take part every round has to be timed.
    alike = all(schedule.participation >= 1 for schedule in experiment.schedules)
    return alike and len(experiment.topology.links) * len(experiment.schedules) <= _MOST_WORK


def counted(num: int) -> str:
    """Return so many published times in words."""
    return "one published time" if num == 1 else f"{num} published times"
