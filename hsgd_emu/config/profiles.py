"""Find profiles by name, path or inline, and check what a typed model alone cannot."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any, TypeVar

from hsgd_emu.config.reader import Document, Path_, Source, read_file
from hsgd_emu.config.schema import ComputeProfile, CsvSamples, LinkProfile, Normal, Samples, Strict, Uniform
from hsgd_emu.config.validate import check
from hsgd_emu.errors import ConfigError, Problem, listed, nearest
from hsgd_emu.units import LONGEST_S

Profile = TypeVar("Profile", LinkProfile, ComputeProfile)
_LATER_MODELS = ("slow_start", "lv08")
_MIN_MASS = 1e-3


def examples_root() -> Path:
    """Return the folder that holds the shipped topologies/, latency_profiles/ and runs/."""
    installed = Path(__file__).parents[1] / "examples"
    return installed if installed.is_dir() else Path(__file__).parents[2]


def find_file(kind: str, name: str, base: Path) -> Path:
    """Return the file that `name` stands for: a path relative to `base`, or a name under a folder `kind`.

    Folders searched: beside the naming file, beside its parent, below the current folder, the shipped examples.
    Raises:  FileNotFoundError: none has it; the text says where was looked and what is there.
    """
    if name.endswith((".yaml", ".yml")) or "/" in name:
        path = base / name
        if path.is_file():
            return path
        raise FileNotFoundError(f"no file '{name}' (relative to {base})")
    folders = [parent / kind for parent in (base, base / "..", Path(), examples_root())]
    known: list[str] = []
    for folder in folders:
        if folder.is_dir():
            path = folder / f"{name}.yaml"
            if path.is_file():
                return Path(*path.parts) if ".." not in path.parts else path.resolve()
            known += [entry.stem for entry in folder.glob("*.yaml")]
    known = sorted(set(known))
    hint = nearest(name, known) or f"; known are {listed(known)}"
    raise FileNotFoundError(f"no '{name}' under {kind}/{hint}")


def load_profile(kind: type[Profile], ref: str | Profile, source: Source, problems: list[Problem]) -> Profile | None:
    """Return the checked profile that `ref` names or holds, CSV samples read in; None after adding problems."""
    if not isinstance(ref, str):
        return _checked(ref, source, problems)
    try:
        document = read_file(_shown(find_file("latency_profiles", ref, source.base)))
    except FileNotFoundError as error:
        problems.append(source.problem((), str(error)))
        return None
    except ConfigError as error:
        problems += error.problems
        return None
    return profile_of(kind, document, problems)


def profile_of(kind: type[Profile], document: Document, problems: list[Problem]) -> Profile | None:
    """Return the checked profile that a file's data give, or None after adding problems."""
    wrong = _wrong_kind(kind, document.data)
    if wrong:
        problems.append(document.source.problem((), wrong))
        return None
    profile: Profile | None = check(kind, document.data, document.source, problems)
    return None if profile is None else _checked(profile, document.source, problems)


def _checked(profile: Profile, source: Source, problems: list[Problem]) -> Profile | None:
    before = len(problems)
    problems += [source.problem(path, text) for path, text in _mistakes(profile)]
    return _with_samples(profile, source, problems) if len(problems) == before else None


def _shown(path: Path) -> Path:
    """Return the path relative to the current folder where it lies below it."""
    try:
        return path.resolve().relative_to(Path.cwd())
    except ValueError:
        return path


def _wrong_kind(kind: type[Strict], data: Any) -> str | None:
    if isinstance(data, dict) and kind is LinkProfile and "step_s" in data:
        return "this is a compute profile (step_s); a link profile is expected (rtt_s, ...)"
    if isinstance(data, dict) and kind is ComputeProfile and {"rtt_s", "up_s", "latency_s"} & set(data):
        return "this is a link profile; a compute profile is expected (step_s)"
    return None


def _mistakes(profile: LinkProfile | ComputeProfile) -> list[tuple[Path_, str]]:
    """Return (path, message) of what is wrong between the fields of a profile."""
    found: list[tuple[Path_, str]] = []
    for name in ("rtt_s", "up_s", "down_s", "latency_s", "step_s"):
        value = getattr(profile, name, None)
        if isinstance(value, Uniform) and value.low > value.high:
            found.append(((name,), f"low {value.low:g} is above high {value.high:g}"))
        if isinstance(value, Normal) and _mass_above_zero(value) < _MIN_MASS:
            text = f"normal with mean {value.mean:g} and std {value.std:g} is almost never at or above 0 seconds"
            found.append(((name,), text))
    if isinstance(profile, ComputeProfile):
        return found if profile.step_s is not None else [*found, (("step_s",), "is missing: seconds of one step")]
    return found + _link_form_mistakes(profile)


def _mass_above_zero(value: Normal) -> float:
    return 0.5 * math.erfc(-value.mean / value.std / math.sqrt(2))


def _link_form_mistakes(profile: LinkProfile) -> list[tuple[Path_, str]]:
    given = [name for name in LinkProfile.model_fields if getattr(profile, name) is not None]
    found: list[tuple[Path_, str]] = []
    forms = {
        "rtt_s": ("rtt_s",),
        "up_s": ("up_s", "down_s"),
        "latency_s": ("latency_s", "bandwidth_bps", "model"),
    }
    begun = [form for form, names in forms.items() if any(name in given for name in names)]
    if len(begun) != 1:
        what = f"gives {listed(begun)} at once" if begun else "gives no cost"
        text = f"{what}; give either rtt_s, or up_s and down_s, or latency_s, bandwidth_bps and model"
        return [((), text)]
    for name in forms[begun[0]]:
        if name not in given:
            found.append(((name,), f"is missing; it goes with {listed(set(forms[begun[0]]) & set(given))}"))
    if profile.up_share is not None and begun != ["rtt_s"]:
        found.append((("up_share",), "only splits an rtt_s, and there is none"))
    if profile.model in _LATER_MODELS:
        found.append((("model",), f"'{profile.model}' is not built yet; raw is"))
    elif profile.model not in (None, "raw"):
        found.append((("model",), f"found '{profile.model}'; expected raw{nearest(str(profile.model), ['raw'])}"))
    if profile.shared:
        found.append((("shared",), "shared bandwidth is not built yet; links are private (shared: false)"))
    return found


def _with_samples(profile: Profile, source: Source, problems: list[Problem]) -> Profile | None:
    """Return the profile with every CSV column replaced by its values."""
    read: dict[str, Samples] = {}
    for name in type(profile).model_fields:
        value = getattr(profile, name)
        if isinstance(value, CsvSamples):
            try:
                read[name] = Samples(samples=_read_column(source.base / value.csv, value.column))
            except ValueError as error:
                problems.append(source.problem((name,), str(error)))
                return None
    return profile.model_copy(update=read) if read else profile


def _read_column(path: Path, column: str) -> tuple[float, ...]:
    values = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            header = rows.fieldnames or []
            if column not in header:
                raise ValueError(f"{path} has no column '{column}'{nearest(column, header)}; it has {listed(header)}")
            for row in rows:
                values.append(_seconds(row[column], path, rows.line_num))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"cannot read {path}: {error}") from None
    if not values:
        raise ValueError(f"{path} has no values in column '{column}'")
    return tuple(values)


def _seconds(text: str | None, path: Path, line: int) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not 0 <= value <= LONGEST_S:
        raise ValueError(f"{path}:{line}: found {text!r}; expected seconds of at least 0")
    return value
