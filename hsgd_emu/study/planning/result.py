"""What a race of schedules found, in words: who was first, who else may be, how sure that is, what was not tried."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from hsgd_emu.config.run_schema import WHOLE_SECTIONS
from hsgd_emu.errors import listed
from hsgd_emu.experiment import plain
from hsgd_emu.metrics import METRICS
from hsgd_emu.results.wording import TextTable, named, number, percent, target_label, value_text
from hsgd_emu.study.planning.candidates import Candidate
from hsgd_emu.study.planning.chances import Lag, ahead_now, lag_behind
from hsgd_emu.study.planning.race import Fate, Finding, median_time

if TYPE_CHECKING:
    import pandas as pd

_MOST_NAMED = 6
_MOST_ROWS = 15
_FATES = {"never": "not reached", "diverged": "diverged", "dropped": "dropped"}


@dataclass(frozen=True)
class Training:
    """What was learned. used: as a share of learning every candidate with every seed to its end.  learned, found:
    iterations learned now, and found in the library.  total: iterations of workers that all would be."""

    used: float
    learned: int
    found: int
    total: float


@dataclass(frozen=True)
class PlanResult:
    """The candidates of a plan, and what was found of each (at the same place).

    num_replications: draws of the network per seed.  stop_s: the moment of emulated time up to which all were learned
    that were not dropped (inf: to their ends).  leader: who had got furthest by then, by place.  confidence: with which
    schedules were dropped, None: none was.
    """

    metric: str
    target: float
    candidates: tuple[Candidate, ...]
    findings: tuple[Finding, ...]
    seeds: tuple[int, ...]
    num_replications: int
    training: Training
    stop_s: float
    leader: int
    confidence: float | None = None

    @property
    def _has_open(self) -> bool:
        return any(found.fate == "open" for found in self.findings)

    @property
    def exact(self) -> bool:
        """Whether learning everything would have told the same."""
        return not any(found.fate in ("open", "dropped") for found in self.findings)

    @cached_property
    def ranking(self) -> list[int]:
        """All candidates by their places: by their medians where these are known, then who had got furthest."""

        def rank(place: int) -> tuple[bool, float, float]:
            found = self.findings[place]
            return found.fate == "diverged", found.time_s, -found.racer.figure_at(self.stop_s)

        return sorted(range(len(self.findings)), key=rank)

    @property
    def best(self) -> Candidate | None:
        """Who was first; None where none reached the target, or the budget was spent before that was known."""
        first = self.ranking[0]
        return None if self._has_open or self.findings[first].fate != "reached" else self.candidates[first]

    def lead(self, place: int) -> float:
        """Return by how much a candidate's median figure was above the best of all others at the stop; NaN: unknown."""
        figures = [found.racer.figure_at(self.stop_s) for found in self.findings]
        lead = figures[place] - max([*figures[:place], *figures[place + 1 :]], default=np.nan)
        return lead if np.isfinite(lead) else np.nan

    def as_json(self) -> dict[str, Any]:
        """Return the answer for other programs: times in seconds, None where not known."""
        best, found = self.best, self.findings[self.ranking[0]]
        known = found.times_s[np.isfinite(found.times_s)]
        first = best and {
            "name": best.name,
            "case": plain(best.case),
            "median_s": found.time_s,
            "low_s": float(known.min()),
            "high_s": float(known.max()),
        }
        return {
            "target": f"{self.metric}={self.target:.12g}",
            "best": first,
            "ranking": [
                {
                    "name": self.candidates[place].name,
                    "median_s": _or_none(self.findings[place].time_s),
                    "reached": int(np.isfinite(self.findings[place].times_s).sum()),
                    "of": self.findings[place].times_s.size,
                    "lead_at_stop": _or_none(self.lead(place)),
                }
                for place in self.ranking
            ],
            "learned_share": self.training.used,
            "exact": self.exact,
        }

    def frame(self) -> pd.DataFrame:
        """Return one row per candidate, by rank.

        Columns: case, variant, own (a case of the run file), local_sgd, fate, time_s (median; NaN where not known to be
        reached), at_least_s (its median is not below that), num_reached (of seeds x draws), iterations (learned, on
        average over seeds), and the median of the best figures of the metric at the stop.
        """
        import pandas as pd

        rows = [
            {
                "case": candidate.case.name,
                "variant": candidate.variant.label,
                "own": candidate.is_own,
                "local_sgd": candidate.is_local_sgd,
                "fate": found.fate,
                "time_s": found.time_s if found.fate == "reached" else np.nan,
                "at_least_s": found.at_least_s,
                "num_reached": int(np.isfinite(found.times_s).sum()),
                "iterations": float(np.mean(found.until)),
                self.metric: self.figure(found),
            }
            for candidate, found in ((self.candidates[place], self.findings[place]) for place in self.ranking)
        ]
        return pd.DataFrame(rows)

    def figure(self, found: Finding) -> float:
        """Return the median of the best figures at the stop, at most the target; NaN: not evaluated by then."""
        value = METRICS[self.metric].sign * found.racer.figure_at(self.stop_s)
        return value if np.isfinite(value) else np.nan

    def figure_text(self, found: Finding) -> str:
        """Return it as a cell: `74.2%`, a dash where there is none."""
        value = self.figure(found)
        return "-" if math.isnan(value) else value_text(self.metric, value)

    @property
    def moment(self) -> str:
        """The stop in words: `at 4.30 s`, `at the end`."""
        return f"at {_s(self.stop_s)}" if math.isfinite(self.stop_s) else "at the end"

    def table(self, most_rows: int = _MOST_ROWS) -> TextTable:
        """Return the candidates by rank."""
        rows = [self._row(rank, place) for rank, place in enumerate(self.ranking[:most_rows], 1)]
        if len(self.ranking) > most_rows:
            rows.append(("", f"and {len(self.ranking) - most_rows} more", *[""] * 5))
        header = ("", "schedule", "median", "low-high", "reached", self.moment, "learned")
        return TextTable(header, rows, num_left=2)

    def _row(self, rank: int, place: int) -> tuple[str, ...]:
        candidate, found = self.candidates[place], self.findings[place]
        learned = float(np.mean(found.until)) / candidate.variant.experiment.train.iterations
        known = found.times_s[np.isfinite(found.times_s)]
        reached = f"{known.size} of {found.times_s.size}"
        share = percent(round(learned, 2))
        if found.fate != "reached":
            later = _FATES.get(found.fate, f"> {_s(found.at_least_s)}")
            return "", candidate.name, later, "", reached, self.figure_text(found), share
        spread = f"{number(known.min(), 3)}-{number(known.max(), 3)}" if np.ptp(known) else ""
        return str(rank), candidate.name, _s(found.time_s), spread, reached, self.figure_text(found), share

    def lines(self) -> list[str]:
        """Return the answer in words, most important first."""
        stopped = self._spent if self._has_open else self._no_answer
        answer = stopped() if self.best is None else self._answer()
        return [*answer, *self._fates_in_words(), self._training(), self._not_tried()]

    @property
    def _settings_differ(self) -> bool:
        """Whether candidates are told apart by more than their schedules."""
        own = ("train", *WHOLE_SECTIONS)
        return any(
            one.variant.settings or any(getattr(one.case, key) is not None for key in own) for one in self.candidates
        )

    # --- an answer --------------------------------------------------------------------------------------

    def _answer(self) -> list[str]:
        first = self.ranking[0]
        best, found = self.candidates[first], self.findings[first]
        label = target_label(self.metric, self.target)
        lines = [f"To {label}, {best.name} is the first: {_s(found.time_s)} ({self._spread(found)})."]
        if not best.is_own:
            lines.append(f"As a case of a run file: {as_yaml(best)}")
        lines += self._ties()
        rest = self.ranking[1:]
        local = [place for place in rest if self.candidates[place].is_local_sgd]
        if not best.is_local_sgd and local:
            kind = "the global server alone" if self._settings_differ else "local SGD"
            lines.append(f"The best of {kind}: {self._against(local[0], found.time_s)}.")
        own = [place for place in rest if self.candidates[place].is_own][:_MOST_NAMED]
        if own:
            lines.append(f"The run's own cases: {'; '.join(self._against(p, found.time_s) for p in own)}.")
        return lines

    def _spread(self, found: Finding) -> str:
        num = found.times_s.size
        median = "one seed" if len(self.seeds) == 1 else f"median of {len(self.seeds)} seeds"
        if self.num_replications > 1:
            median += f" x {self.num_replications} draws of the network"
        if num == 1:
            return median
        known = found.times_s[np.isfinite(found.times_s)]
        spread = f"{number(known.min(), 3)} to {number(known.max(), 3)} s" if np.ptp(known) else "all the same"
        missing = num - known.size
        return f"{median}, {spread}{f', and {missing} of {num} later or never' if missing else ''}"

    def _ties(self) -> list[str]:
        """Return who cannot be told from the winner."""
        if len(self.seeds) == 1:
            return ["1 seed: small differences may be chance; more `seeds` in the run file tell."]
        winner = self.findings[self.ranking[0]].racer
        lags = {place: lag for place in self.ranking[1:] if (lag := self._lag(place)) and not lag.told_apart}
        near = sorted(lags, key=lambda place: lags[place].share)
        if not near:
            return [f"{len(winner.trials)} seeds tell it from every other."]
        named_ones = near[: _MOST_NAMED - 1]
        within = percent(max(math.ceil(100 * lags[named_ones[-1]].share), 1) / 100)
        names = ", ".join(self.candidates[place].name for place in (self.ranking[0], *named_ones))
        more = f" (and {len(near) - len(named_ones)} further off)" if len(near) > len(named_ones) else ""
        num_seeds = lags[near[0]].num_seeds
        enough = "more than a thousand" if num_seeds is None else f"about {num_seeds}"
        told = f"{len(self.seeds)} seeds do not tell them apart; {enough} would tell the first two"
        return [f"Within {within}: {names}{more}. {told}."]

    def _lag(self, place: int) -> Lag | None:
        found = self.findings[place]
        if found.fate not in ("reached", "beaten"):
            return None
        return lag_behind(self.findings[self.ranking[0]].racer, found.racer)

    def _against(self, place: int, best_s: float) -> str:
        """Return how much longer a candidate takes, as far as that is known."""
        name, found = self.candidates[place].name, self.findings[place]
        if found.fate == "reached":
            times = f", {number(found.time_s / best_s, 2)} times as long" if best_s > 0 else ""
            return f"{name} takes {_s(found.time_s)}{times}"
        if found.fate == "never":
            return f"{name} does not reach it"
        if found.fate == "diverged":
            return f"{name} diverges with {found.racer.num_diverged} of {len(self.seeds)} seeds"
        if found.fate == "dropped":
            return f"{name} was dropped"
        return f"{name} had {self.figure_text(found)} then"

    def _fates_in_words(self) -> list[str]:
        fates = Counter(found.fate for found in self.findings)
        lines = [f"Of {len(self.findings)} schedules, {self._fates(fates)}."]
        dropped = [place for place in self.ranking if self.findings[place].fate == "dropped"]
        if dropped and self.confidence is not None:
            cost = sum(self.findings[place].cost for place in dropped) / self.training.total
            names = listed([self.candidates[place].name for place in dropped[:_MOST_NAMED]])
            more = f" and {len(dropped) - _MOST_NAMED} more" if len(dropped) > _MOST_NAMED else ""
            lines.append(
                f"Dropped as beaten with {percent(self.confidence)} probability each, not for certain: {names}{more}. "
                f"To be certain would have taken {percent(round(cost, 3))} of all training more."
            )
        return lines

    def _fates(self, fates: Counter[Fate]) -> str:
        words: dict[Fate, str] = {
            "reached": "{} reached the target",
            "never": "{} did not within their iterations",
            "diverged": "{} diverged with some seed (a model or loss that is NaN or infinite) and are out of the race",
            "beaten": "{} are later for certain",
            "dropped": "{} were dropped",
            "open": "{} were still in the race",
        }
        return ", ".join(text.format(fates[fate]) for fate, text in words.items() if fates[fate])

    # --- no answer --------------------------------------------------------------------------------------

    def _spent(self) -> list[str]:
        """Say who led when the budget was spent."""
        leader = self.findings[self.leader]
        name, label = self.candidates[self.leader].name, target_label(self.metric, self.target)
        first = f"The budget was spent {self.moment} of emulated time, before the first to {label} was known."
        if math.isnan(self.figure(leader)):
            return [f"{first} None led: not all had been evaluated. Try a larger --budget."]
        return [f"{first} {name} led with {named(self.metric, self.figure_text(leader))}.", self._chances()]

    def _chances(self) -> str:
        """Return how likely it is that another one is better than the leader: as if each were by itself."""
        leader = self.findings[self.leader].racer
        able = [place for place, found in enumerate(self.findings) if found.fate == "open" and place != self.leader]
        chances = {place: ahead_now(leader, self.findings[place].racer, self.stop_s) for place in able}
        known = {place: 1 - chance for place, chance in chances.items() if chance is not None}
        if not known:
            why = "one seed has no spread" if len(self.seeds) == 1 else "no other was evaluated by then"
            return f"How likely another is better cannot be told: {why}. A larger --budget goes on from here."
        likeliest = max(known, key=lambda place: known[place])
        chance = 1 - math.prod(1 - share for share in known.values())
        dark = len(able) - len(known)
        rest = f"; of {dark} that had not been evaluated with every seed nothing is known" if dark else ""
        return (
            f"The chance that another is better: about {percent(round(chance, 2))}, {self.candidates[likeliest].name} "
            f"being the likeliest ({percent(round(known[likeliest], 2))}){rest}. A larger --budget goes on from here."
        )

    def _no_answer(self) -> list[str]:
        label = target_label(self.metric, self.target)
        advice = "a nearer --target, or more --set train.iterations"
        if any(found.fate == "diverged" for found in self.findings):
            advice += ", or a smaller learning rate"
        first = f"No schedule reached {label} with more than half of its seeds."
        return [first, *self._furthest(), f"Try {advice}."]

    def _furthest(self) -> list[str]:
        """Say which level was reached, by whom and when; and who reached the target with some seeds."""
        able = [place for place, found in enumerate(self.findings) if not np.isneginf(_level(found))]
        if not able:
            return []
        level = max(_level(self.findings[place]) for place in able)
        times_s = {p: _time_to(self.findings[p], level) for p in able if _level(self.findings[p]) == level}
        place = min(times_s, key=lambda place: times_s[place])
        got = named(self.metric, value_text(self.metric, METRICS[self.metric].sign * level))
        lines = [f"{self.candidates[place].name} got furthest: {got}, after {_s(times_s[place])}."]
        some = {p: found.times_s[np.isfinite(found.times_s)] for p, found in enumerate(self.findings)}
        some = {p: known for p, known in some.items() if known.size}
        if some:
            most = max(some, key=lambda p: (some[p].size, -some[p].min()))
            num = f"{some[most].size} of {self.findings[most].times_s.size} times"
            lines.append(f"{self.candidates[most].name} reached it {num}, first after {_s(some[most].min())}.")
        return lines

    # --- what it took -----------------------------------------------------------------------------------

    def _training(self) -> str:
        used, num = self.training, len(self.findings)
        seeds = f"{len(self.seeds)} seed{'s' * (len(self.seeds) > 1)}"
        found = used.found / max(1, used.found + used.learned)
        shelf = f"; {percent(round(found, 2))} of it was in the library" if used.found else ""
        return (
            f"Training: {percent(round(used.used, 3))} of learning all {num} schedules with {seeds} to the end{shelf}."
        )

    def _not_tried(self) -> str:
        tried = any(candidate.variant.settings for candidate in self.candidates)
        variants = list(dict.fromkeys(candidate.variant.label for candidate in self.candidates))
        periods = sorted({p for one in self.candidates for stage in one.schedule.stages for p in stage.period.values()})
        parts = [
            f"periods other than {listed(periods)}",
            "servers of one level with different periods",
            *([] if any("topology" in label for label in variants) else ["other topologies (--topology)"]),
            *([] if any("grouping" in label for label in variants) else ["other groupings of the data (--grouping)"]),
            "other settings than these" if tried else "other learning rates, optimizers and servers (--try)",
            "other batch sizes and participation",
        ]
        return f"Not tried: {'; '.join(parts)}."


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _level(found: Finding) -> float:
    """Return the highest level that its median reaches: with more than half of the seeds."""
    if found.fate == "diverged" or not all(trial.best for trial in found.racer.trials):
        return -math.inf
    bests = sorted(trial.best[-1] for trial in found.racer.trials)
    return bests[(len(bests) - 1) // 2]


def _time_to(found: Finding, level: float) -> float:
    never = np.full(found.times_s.shape[1], np.inf)
    times_s = [
        trial.time_s[:, np.searchsorted(trial.best, level)] if trial.best[-1] >= level else never
        for trial in found.racer.trials
    ]
    return median_time(np.array(times_s))


def _s(value: float) -> str:
    return f"{number(value, 3)} s"


def as_yaml(candidate: Candidate) -> str:
    own = {key: value for key, value in plain(candidate.case).items() if key != "name"}
    settings = candidate.variant.settings
    if "train" in own and "train" in settings:
        own["train"] = {**settings["train"], **own["train"]}
    own = {**settings, **own}
    return (
        f'{{name: "{candidate.case.name}", {yaml.safe_dump(own, default_flow_style=True, width=math.inf).strip()[1:]}'
    )
