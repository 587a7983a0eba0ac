"""What planning found, in words: the best schedule, what it is better than, how sure that is, what was not tried."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import yaml

from hsgd_emu.config.run_schema import WHOLE_SECTIONS
from hsgd_emu.errors import listed
from hsgd_emu.experiment import plain
from hsgd_emu.metrics import METRICS
from hsgd_emu.results.wording import TextTable, number, percent, target_label
from hsgd_emu.study.planning.candidates import Candidate
from hsgd_emu.study.planning.search import DOUBT, Fate, Finding

if TYPE_CHECKING:
    import pandas as pd

_MOST_NAMED = 6
_MOST_ROWS = 15
_FATES = {"never": "not reached", "open": "still open"}


@dataclass(frozen=True)
class Training:
    """What was learned. used: as a share of learning every candidate with every seed to its end; budget: the most it
    might be.  learned, found: iterations learned now, and found in the library."""

    used: float
    budget: float
    learned: int
    found: int


@dataclass(frozen=True)
class PlanResult:
    """The candidates of a plan, and what was found of each (at the same place).

    num_replications: draws of the network per seed.
    """

    metric: str
    target: float
    candidates: tuple[Candidate, ...]
    findings: tuple[Finding, ...]
    seeds: tuple[int, ...]
    num_replications: int
    training: Training

    @property
    def ranking(self) -> list[int]:
        """Candidates that reached the target in the median, by their places, the fastest first."""
        reached = [place for place, finding in enumerate(self.findings) if finding.fate == "reached"]
        return sorted(reached, key=lambda place: self.findings[place].time_s)

    @property
    def best(self) -> Candidate | None:
        """The fastest candidate, None where none reached the target."""
        return self.candidates[self.ranking[0]] if self.ranking else None

    def frame(self) -> pd.DataFrame:
        """Return one row per candidate, the fastest first, then by how long they look to take.

        Columns: case, variant, own (a case of the run file), local_sgd, fate, time_s (median; NaN where not known to be
        reached), looks_s (how long it looked to take; NaN: longer than its iterations), at_least_s (its median is not
        below that), num_reached (of seeds x draws), iterations (learned, on average over seeds), and the best figure of
        the metric so far, median over seeds.
        """
        import pandas as pd

        rows = [
            {
                "case": candidate.case.name,
                "variant": candidate.variant.label,
                "own": candidate.is_own,
                "local_sgd": candidate.is_local_sgd,
                "fate": found.fate,
                "time_s": _finite(found.time_s) if found.fate == "reached" else np.nan,
                "looks_s": _finite(found.time_s),
                "at_least_s": _finite(found.at_least_s),
                "num_reached": int(np.isfinite(found.times_s).sum()),
                "iterations": float(np.mean(found.until)),
                self.metric: self._figure(found),
            }
            for candidate, found in zip(self.candidates, self.findings, strict=True)
        ]
        return pd.DataFrame(rows).sort_values(["time_s", "looks_s"], kind="stable", ignore_index=True)

    def table(self) -> TextTable:
        """Return the candidates by rank: those that reached the target, the fastest first, then as they looked."""
        looks = [place for place in range(len(self.findings)) if place not in self.ranking]
        looks.sort(key=lambda place: self.findings[place].time_s)
        order = [*self.ranking, *looks]
        rows = [self._row(rank, place) for rank, place in enumerate(order[:_MOST_ROWS], 1)]
        if len(order) > _MOST_ROWS:
            rows.append(("", f"and {len(order) - _MOST_ROWS} more", "", "", "", ""))
        return TextTable(("", "schedule", "median", "low-high", "reached", "learned"), rows, num_left=2)

    def _row(self, rank: int, place: int) -> tuple[str, ...]:
        candidate, found = self.candidates[place], self.findings[place]
        learned = float(np.mean(found.until)) / candidate.variant.experiment.train.iterations
        reached = int(np.isfinite(found.times_s).all(axis=1).sum())
        seeds = f"{reached} of {len(self.seeds)}"
        if found.fate != "reached":
            looks = f"looked {_s(found.time_s)}" if np.isfinite(found.time_s) else ""
            return "", candidate.name, _FATES.get(found.fate, found.fate), looks, seeds, percent(round(learned, 2))
        known = found.times_s[np.isfinite(found.times_s)]
        spread = f"{number(known.min(), 3)}-{number(known.max(), 3)}" if np.ptp(known) else ""
        return str(rank), candidate.name, _s(found.time_s), spread, seeds, percent(round(learned, 2))

    def lines(self) -> list[str]:
        """Return the answer in words, most important first."""
        answer = self._answer() if self.ranking else self._no_answer()
        return [*answer, self._training(), self._not_tried()]

    @property
    def _settings_differ(self) -> bool:
        """Whether candidates are told apart by more than their schedules."""
        own = ("train", *WHOLE_SECTIONS)
        return any(
            one.variant.settings or any(getattr(one.case, key) is not None for key in own) for one in self.candidates
        )

    # --- an answer --------------------------------------------------------------------------------------

    def _answer(self) -> list[str]:
        best, found = self.best, self.findings[self.ranking[0]]
        assert best is not None
        label = target_label(self.metric, self.target)
        lines = [f"To {label}, {best.name} is expected to take {_s(found.time_s)} ({self._spread(found)})."]
        if not best.is_own:
            lines.append(f"As a case of a run file: {as_yaml(best)}")
        local = [place for place, one in enumerate(self.candidates) if one.is_local_sgd]
        if not best.is_local_sgd and local:
            kind = "the global server alone" if self._settings_differ else "local SGD"
            lines.append(f"The best of {kind}: {self._against(self._fastest(local), found.time_s)}.")
        own = [place for place, one in enumerate(self.candidates) if one.is_own and one is not best]
        if own:
            cases = sorted(own, key=lambda place: self.findings[place].time_s)[:_MOST_NAMED]
            lines.append(f"The run's own cases: {'; '.join(self._against(p, found.time_s) for p in cases)}.")
        return [*lines, *self._certainty(found)]

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

    def _fastest(self, places: Sequence[int]) -> int:
        """Return the fastest of some candidates: by its time where it is known, else by how long it looked to take."""
        return min(places, key=lambda p: (self.findings[p].time_s, self.findings[p].at_least_s))

    def _against(self, place: int, best_s: float) -> str:
        """Return how much longer a candidate takes, as far as that is known."""
        name, found = self.candidates[place].name, self.findings[place]
        times = f", {number(found.time_s / best_s, 2)} times as long" if best_s > 0 else ""
        if found.fate == "reached":
            return f"{name} takes {_s(found.time_s)}{times}"
        if found.fate == "never":
            return f"{name} does not reach it"
        if found.fate == "diverged":
            return f"{name} diverges with {found.num_diverged} of {len(self.seeds)} seeds"
        looks = f"looked to take about {_s(found.time_s)}{times}"
        if not np.isfinite(found.time_s):
            looks = "looked not to reach it"
        return f"{name} takes longer for certain, and {looks}" if found.fate == "beaten" else f"{name} {looks}"

    def _certainty(self, best: Finding) -> list[str]:
        fates = Counter(found.fate for found in self.findings)
        lines = [f"Of {len(self.findings)} schedules, {self._fates(fates)}."]
        dropped = [place for place, found in enumerate(self.findings) if found.fate == "dropped"]
        if dropped:
            nearest = self.candidates[self._fastest(dropped)].name
            untried = sum(not any(self.findings[place].until) for place in dropped)
            text = f"Dropped is not certain: each would have had to learn {DOUBT:g} times as fast as it had shown"
            if untried:
                text += (
                    f" ({untried} of them had not learned at all: {DOUBT:g} times as fast as any that average oftener)"
                )
            found = self.findings[self._fastest(dropped)]
            behind = "which looked not to reach it at all"
            if np.isfinite(found.time_s):
                behind = f"which looked to take {number(found.time_s / best.time_s, 2)} times as long"
            lines.append(f"{text}. The nearest was {nearest}, {behind}.")
        if len(self.ranking) > 1:
            lines.append(f"Next best: {self._against(self.ranking[1], best.time_s)}.")
        if best.times_s.shape[0] < 5:
            num = best.times_s.shape[0]
            lines.append(
                f"{num} seed{'s' * (num > 1)}: small differences may be chance; more `seeds` in the run file tell."
            )
        return lines

    def _fates(self, fates: Counter[Fate]) -> str:
        words: dict[Fate, str] = {
            "reached": "{} reached the target",
            "never": "{} did not within their iterations",
            "diverged": "{} diverged with some seed (a model or loss that is NaN or infinite) and are out of the race",
            "beaten": "{} were beaten for certain (their clock passed the best time before they reached it)",
            "dropped": "{} were dropped as too slow",
            "open": "{} were still open when the budget was spent",
        }
        return ", ".join(text.format(fates[fate]) for fate, text in words.items() if fates[fate])

    # --- no answer --------------------------------------------------------------------------------------

    def _no_answer(self) -> list[str]:
        label = target_label(self.metric, self.target)
        spent = any(found.fate == "open" for found in self.findings)
        advice = (
            "a larger --budget, which may find one" if spent else "a nearer --target, or more --set train.iterations"
        )
        first = f"No schedule reached {label} with more than half of its seeds{' before the budget was spent' * spent}"
        fates = Counter(found.fate for found in self.findings)
        if fates["diverged"]:
            first += f"; of {len(self.findings)} schedules, {self._fates(fates)}"
            advice += ", or a smaller learning rate"
        return [f"{first}.", f"{self._furthest()}Try {advice}."]

    def _furthest(self) -> str:
        """Say which candidate got how far, with a space after it; nothing where none has any figure."""
        sign = METRICS[self.metric].sign
        figures = [sign * self._figure(found) for found in self.findings]
        known = [figure for figure in figures if not np.isnan(figure)]
        if not known:
            return ""
        got = target_label(self.metric, round(sign * max(known), 4))
        return f"{self.candidates[figures.index(max(known))].name} got furthest: {got} (median of the seeds). "

    def _figure(self, found: Finding) -> float:
        value = float(np.median(found.best))
        return np.nan if np.isinf(value) else abs(value)

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


def _finite(value: float) -> float:
    return value if np.isfinite(value) else np.nan


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
