"""The table that constants are fitted to: measured times of cases, as CSV or YAML, or the run's published ones."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hsgd_emu.config.load import raise_problems
from hsgd_emu.config.measured import BROKEN_CSV, MAX_CSV_BYTES
from hsgd_emu.config.published import row_mistakes
from hsgd_emu.config.reader import Document, Mark, Source, read_file
from hsgd_emu.config.run_schema import PublishedTime
from hsgd_emu.config.validate import check, unknown_key
from hsgd_emu.config.wording import shown
from hsgd_emu.errors import ConfigError, Problem, listed, nearest
from hsgd_emu.files import read_text_bounded
from hsgd_emu.metrics import Target
from hsgd_emu.results.summary import median_reached
from hsgd_emu.results.wording import target_label
from hsgd_emu.study.finished import FinishedRun, Reached

_MAX_ROWS = 10_000


class TableRow(PublishedTime):
    """One measured time: until a target was reached, or for a number of iterations."""

    seed: int | None = None
    """Default: the median over the run's seeds."""


@dataclass(frozen=True)
class Measured:
    """A row with what the run says of it.

    reached: by seed, at which iteration the time was taken.  target: None where the row gives iterations.
    """

    case: str
    time_s: float
    reached: Reached
    target: Target | None = None


def read_table(path: Path, run: FinishedRun) -> list[Measured]:
    """Return the rows of a table.

    Raises:  ConfigError: every mistake in it, with its line; or a row needs what the run did not learn.
    """
    problems: list[Problem] = []
    document = read_file(path) if path.suffix in (".yaml", ".yml") else _read_csv(path, problems)
    data, source = document.data, document.source
    if not isinstance(data, list) or not data:
        raise_problems(problems)
        text = f"found {shown(data)}; expected a list of rows, as in [{{case: P=5, time_s: 673.5, iterations: 400}}]"
        problems.append(source.problem((), "there are no rows" if data == [] else text))
        raise_problems(problems)
    measured = []
    for place, item in enumerate(data):
        # The line says which row it is.
        here = Source(source.at(place).mark, source.base)
        row = check(TableRow, item, here, problems)
        measured += [] if row is None else [_measured(row, here, run, problems)]
    raise_problems(problems)
    return [one for one in measured if one is not None]


def published_rows(run: FinishedRun) -> tuple[list[Measured], list[str]]:
    """Return the published times of a run's own file, and in words which of them it cannot be held against.

    Raises:  ConfigError: it has none, or not one of their targets was reached; or see `FinishedRun.recorded`.
    """
    spec, where = run.experiment.published, str(run.folder)
    if spec is None:
        text = "its run file has no published times; give `--table FILE`, a CSV with case,time_s, or put them in with"
        raise ConfigError.of(where, "", f"{text} `hsgd-emu retime {run.folder} --set published=FILE --out DIR`")
    measured: list[Measured] = []
    left_out: list[str] = []
    for row in spec.times:
        target = None if row.metric is None or row.target is None else (row.metric, row.target)
        reached = _iterations(run, row, target, run.experiment.seeds)
        if median_reached(list(reached.values())) is None:
            assert target is not None
            left_out.append(_not_reached(row.case, target, reached))
        else:
            measured.append(Measured(row.case, row.time_s, reached, target))
    if not measured:
        raise ConfigError.of(where, "", f"no published time can be compared: {listed(left_out, 4)}")
    return measured, left_out


def _measured(row: TableRow, source: Source, run: FinishedRun, problems: list[Problem]) -> Measured | None:
    experiment, levels = run.experiment, run.experiment.target_levels()
    cases = {schedule.name: schedule.mistake_at for schedule in experiment.schedules}
    found = row_mistakes(row, cases, levels)
    if row.seed is not None and row.seed not in experiment.seeds:
        found.append(("seed", f"the run has no seed {row.seed}; it has {listed(experiment.seeds)}"))
    reached: Reached = {}
    target = None
    if not found:
        if row.iterations is None:
            target = levels[0] if row.metric is None or row.target is None else (row.metric, row.target)
        reached = _iterations(run, row, target, experiment.seeds if row.seed is None else (row.seed,))
        if target is not None and median_reached(list(reached.values())) is None:
            found.append(("target", f"in the run {_not_reached(row.case, target, reached)}; give iterations instead"))
    problems += [source.problem((field,), text) for field, text in found]
    return None if found else Measured(row.case, row.time_s, reached, target)


def _iterations(run: FinishedRun, row: PublishedTime, target: Target | None, seeds: Sequence[int]) -> Reached:
    """Return at which iteration each seed that the row is about was timed."""
    if target is None:
        return dict.fromkeys(seeds, row.iterations)
    return {seed: at for seed, at in run.reached(row.case, target).items() if seed in seeds}


def _not_reached(case: str, target: Target, reached: Reached) -> str:
    num = sum(at is not None for at in reached.values())
    return f"'{case}' did not reach {target_label(*target)} ({num} of {len(reached)} seeds did)"


# --- CSV ---------------------------------------------------------------------------------------------


def _read_csv(path: Path, problems: list[Problem]) -> Document:
    """Return the rows of a CSV file as a YAML file would give them: an empty cell is a key that is not there."""
    label = str(path)
    rows: list[dict[str, Any]] = []
    mark = Mark(f"{label}:1")
    reader = csv.reader(io.StringIO(read_text_bounded(path, MAX_CSV_BYTES, "a CSV or YAML file"), newline=""))
    try:
        for line, cells in _lines(reader, label, problems):
            here = Mark(f"{label}:{line}")
            here.inside = {key: Mark(here.where) for key in cells}
            mark.inside[len(rows)] = here
            rows.append(cells)
    except csv.Error:
        raise ConfigError.of(f"{label}:{reader.line_num}", "", BROKEN_CSV) from None
    return Document(rows, Source(mark, path.parent))


def _lines(reader: Any, label: str, problems: list[Problem]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line, cells by column) of the rows; what is wrong with the header ends it."""
    header = [name.strip() for name in next(reader, [])]
    problems += [Problem(f"{label}:1", "", text) for text in _header_mistakes(header)]
    if problems:
        raise_problems(problems)
    for number, cells in enumerate(reader):
        if number == _MAX_ROWS:
            raise ConfigError.of(f"{label}:{reader.line_num}", "", f"more than {_MAX_ROWS} rows")
        if len(cells) > len(header):
            text = f"{len(cells)} cells for {len(header)} columns; a name with a comma in it stands in quotes"
            problems.append(Problem(f"{label}:{reader.line_num}", "", text))
        elif any(cell.strip() for cell in cells):
            given = zip(header, cells, strict=False)
            yield reader.line_num, {key: _value(key, cell.strip()) for key, cell in given if cell.strip()}


def _header_mistakes(header: list[str]) -> list[str]:
    columns = list(TableRow.model_fields)
    missing = [name for name in ("case", "time_s") if name not in header]
    if len(missing) == 2:
        divided = ", divided by commas" if any(char in name for name in header for char in ";\t") else ""
        return [f"the first line is to name the columns{divided}, at least case and time_s; known: {listed(columns)}"]
    twice = [name for name in dict.fromkeys(header) if header.count(name) > 1]
    unknown = [unknown_key(name, columns) for name in header if name not in columns]
    # A misspelt column is not missing as well.
    absent = [name for name in missing if not any(nearest(other, [name]) for other in header if other not in columns)]
    return [
        *unknown,
        *(f"the column '{name}' stands twice" for name in twice),
        *(f"the column '{name}' is missing" for name in absent),
    ]


def _value(column: str, text: str) -> Any:
    """Return a cell as the number it is, text where it is none (which is then reported where it should be one)."""
    if column in ("case", "metric") or "_" in text:
        return text
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
