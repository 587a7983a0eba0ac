"""Find profiles by name, path or inline, check what a typed model alone cannot, and note what is often a slip."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeVar

from hsgd_emu.config.kinds import PUBLISHED, kind_of
from hsgd_emu.config.measured import MeasuredError, read_measured, unit_named
from hsgd_emu.config.reader import Document, Path_, Source, read_file
from hsgd_emu.config.schema import (
    COST_FIELDS,
    LATER_MODELS,
    MODELS,
    Bandwidth,
    ComputeProfile,
    CostValue,
    CsvSamples,
    Law,
    LinkProfile,
    Samples,
    Strict,
)
from hsgd_emu.config.validate import check, has_unknown_key
from hsgd_emu.errors import ConfigError, Problem, Problems, listed, nearest
from hsgd_emu.files import nearest_beside
from hsgd_emu.units import to_ns

Profile = TypeVar("Profile", LinkProfile, ComputeProfile)
_LINK_FORMS = {
    "rtt_s": ("rtt_s",),
    "up_s": ("up_s", "down_s"),
    "latency_s": ("latency_s", "bandwidth_bps", "model"),
}
_KINDS = {"topologies": "topology", "latency_profiles": "profile", "runs": "run", "published": PUBLISHED}
"""The kind of file that lies in each folder."""


def examples_root() -> Path:
    """Return the folder that holds the shipped topologies/, latency_profiles/ and runs/."""
    installed = Path(__file__).parents[1] / "examples"
    return installed if installed.is_dir() else Path(__file__).parents[2]


def find_file(kind: str, name: str, base: Path, folder: Path | None = None) -> Path:
    """Return the file that `name` stands for: a path relative to `folder` (`base`), or a name under a folder `kind`.

    Folders searched: beside the naming file, beside its parent, below the current folder, the shipped examples.
    Raises:  FileNotFoundError: none has it; the text says where was looked and what is there.
    """
    if name.endswith((".yaml", ".yml")) or "/" in name:
        path = (folder or base) / name
        if _is_there(path):
            return path  # whoever reads it says what is wrong with it where it is no file
        raise FileNotFoundError(f"no file '{shown_path(path)}'{nearest_beside(path)}")
    folders = [parent / kind for parent in (base, base / "..", Path(), examples_root())]
    known: list[str] = []
    for folder in folders:
        if folder.is_dir():
            path = folder / f"{name}.yaml"
            if is_file(path):
                return path.resolve() if ".." in path.parts else path
            known += [entry.stem for entry in folder.glob("*.yaml")]
    known = sorted(set(known))
    hint = nearest(name, known) or f"; known are {listed(known)}"
    raise FileNotFoundError(f"no '{name}' under {kind}/{hint}")


def has_profile(name: str, base: Path) -> bool:
    """Return whether there is a file of a profile that a name or path stands for; see `find_file`."""
    try:
        return find_file("latency_profiles", name, base).is_file()
    except FileNotFoundError:
        return False


def is_file(path: Path) -> bool:
    """Return whether a file is there; no name, however odd or long, raises."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _is_there(path: Path) -> bool:
    try:
        return path.is_symlink() or path.exists()
    except (OSError, ValueError):
        return False


def read_named(kind: str, name: str, source: Source, problems: list[Problem]) -> Document | None:
    """Return the data of the file that a name or path at `source` stands for, or None after adding problems."""
    try:
        document = read_file(shown_path(find_file(kind, name, source.base, source.folder)))
        found = kind_of(document.data)
        if found in (None, _KINDS[kind]):
            return document
        problems.append(source.problem((), f"'{name}' is a {found}, and a {_KINDS[kind]} is needed"))
    except FileNotFoundError as error:
        problems.append(source.problem((), str(error)))
    except ConfigError as error:
        problems += error.problems
    return None


def load_profile(kind: type[Profile], ref: str | Profile, source: Source, problems: Problems) -> Profile | None:
    """Return the checked profile that `ref` names or holds, CSV samples read in; None after adding problems."""
    if not isinstance(ref, str):
        return _checked(ref, source, problems)
    document = read_named("latency_profiles", ref, source, problems)
    if document is None:
        return None
    wrong = _wrong_kind(kind, document.data)
    if wrong:
        problems.append(source.problem((), f"'{ref}' is {wrong}"))
        return None
    return profile_of(kind, document, problems)


def kind_of_profile(data: Any) -> Any:
    """Return the model of the profile that some data give."""
    return ComputeProfile if isinstance(data, dict) and "step_s" in data else LinkProfile


def profile_of(kind: type[Profile], document: Document, problems: Problems) -> Profile | None:
    """Return the checked profile that a file's data give, or None after adding problems."""
    profile: Profile | None = check(kind, document.data, document.source, problems)
    return None if profile is None else _checked(profile, document.source, problems)


def _checked(profile: Profile, source: Source, problems: Problems) -> Profile | None:
    gives_cost = any(getattr(profile, name, None) is not None for name in COST_FIELDS)
    if not gives_cost and has_unknown_key(source, problems):
        return None  # The unknown key is meant as the cost, and is reported.
    before = len(problems)
    problems += [source.problem(path, text) for path, text in _mistakes(profile)]
    whole = _with_samples(profile, source, problems) if len(problems) == before else None
    if whole is not None:
        note_profile(whole, source, problems)
    return whole


def check_cost(value: CostValue, source: Source, problems: Problems) -> CostValue | None:
    """Return a cost that stands by itself, CSV samples read in; None after adding problems."""
    mistake = _value_mistake(value)
    if mistake:
        problems.append(source.problem((), mistake))
        return None
    whole = _read_samples(value, source, problems)[0] if isinstance(value, CsvSamples) else value
    note_cost("an aggregation", whole, source, problems, may_be_nothing=True)
    return whole


def shown_path(path: Path) -> Path:
    """Return the path relative to the current folder where it lies below it."""
    try:
        return path.resolve().relative_to(Path.cwd())
    except (ValueError, OSError, RuntimeError):  # below another folder; links that lead round in a circle
        return path


def _wrong_kind(kind: type[Strict], data: Any) -> str | None:
    if isinstance(data, dict) and kind is LinkProfile and "step_s" in data:
        return "a compute profile (step_s), and a link needs a link profile (rtt_s, ...)"
    if isinstance(data, dict) and kind is ComputeProfile and {"rtt_s", "up_s", "latency_s"} & set(data):
        return "a link profile, and a worker needs a compute profile (step_s)"
    return None


def _mistakes(profile: LinkProfile | ComputeProfile) -> list[tuple[Path_, str]]:
    """Return (path, message) of what is wrong between the fields of a profile."""
    found: list[tuple[Path_, str]] = []
    for name in COST_FIELDS:
        mistake = _value_mistake(getattr(profile, name, None))
        if mistake:
            found.append(((name,), mistake))
    if isinstance(profile, ComputeProfile):
        return found if profile.step_s is not None else [*found, (("step_s",), "is missing: seconds of one step")]
    return found + _link_form_mistakes(profile)


def _value_mistake(value: CostValue | None) -> str | None:
    """Return what is wrong between the parameters of a distribution."""
    return value.mistake() if isinstance(value, Law) else None


def _link_form_mistakes(profile: LinkProfile) -> list[tuple[Path_, str]]:
    given = [name for name in LinkProfile.model_fields if getattr(profile, name) is not None]
    found: list[tuple[Path_, str]] = []
    begun = [form for form, names in _LINK_FORMS.items() if any(name in given for name in names)]
    if len(begun) != 1:
        clashing = [next(name for name in _LINK_FORMS[form] if name in given) for form in begun]
        what = f"gives {listed(clashing)} at once" if begun else "gives no cost"
        text = f"{what}; give either rtt_s, or up_s and down_s, or latency_s, bandwidth_bps and model"
        return [((), text)]
    for name in _LINK_FORMS[begun[0]]:
        if name not in given:
            others = [key for key in _LINK_FORMS[begun[0]] if key in given]
            found.append(((name,), f"is missing; it goes with {listed(others)}"))
    if profile.up_share is not None and begun != ["rtt_s"]:
        found.append((("up_share",), "only splits an rtt_s, and there is none"))
    if profile.model in LATER_MODELS:
        found.append((("model",), f"'{profile.model}' is not built yet; {listed(MODELS)} is"))
    elif profile.model not in (None, *MODELS):
        found.append((("model",), f"found '{profile.model}'; expected {listed(MODELS)}"))
    if profile.shared:
        found.append((("shared",), "shared bandwidth is not built yet; links are private (shared: false)"))
    return found


def _with_samples(profile: Profile, source: Source, problems: Problems) -> Profile | None:
    """Return the profile with every CSV column replaced by its values; None after adding problems."""
    read: dict[str, Any] = {}
    before = len(problems)
    for name in COST_FIELDS:
        value = getattr(profile, name, None)
        if isinstance(value, CsvSamples):
            read[name], dropped = _read_samples(value, source.at(name), problems)
            if dropped:
                # The file itself does not travel with the run: what its values lack is told with their source.
                told = read.get("source", profile.source) or f"{value.csv}, column {value.column}"
                read["source"] = f"{told.strip()} ({dropped})"
    if len(problems) > before:
        return None
    return profile.model_copy(update=read) if read else profile


def _read_samples(value: CsvSamples, source: Source, problems: Problems) -> tuple[Samples | None, str]:
    """Return the values of a CSV column, and in words what was dropped; None after adding problems."""
    path = shown_path(source.folder / value.csv)
    try:
        values_s, dropped = read_measured(value, path)
    except MeasuredError as error:
        problems += [source.problem((), text) for text in error.mistakes]
        return None, ""
    if dropped:
        problems.note(source.problem((), f"{path}: {dropped}"))
    named = unit_named(value.column)
    if value.unit is not None and named not in (None, value.unit):
        text = f"{path}: the column '{value.column}' is read in {value.unit}, as `unit` says"
        problems.note(source.problem((), text))
    return Samples(samples=values_s), dropped


_LONG_S = 10
_SHORT_S = 1e-6
_SLOW_BPS = 1000
_FAST_BPS = 1e15


def note_profile(profile: LinkProfile | ComputeProfile, source: Source, problems: Problems) -> None:
    """Add notes on a valid profile, whose CSV samples have been read in."""
    if isinstance(profile, ComputeProfile):
        note_cost("a step", profile.step_s, source.at("step_s"), problems)
        return
    note_cost("an RTT", profile.rtt_s, source.at("rtt_s"), problems)
    both_ways = [value for value in (profile.up_s, profile.down_s) if value is not None]
    if both_ways and all(map(_is_nothing, both_ways)):
        problems.note(source.problem((), "up_s and down_s are exactly 0 s; are values missing?"))
    for name, what in (("up_s", "an upload"), ("down_s", "a download"), ("latency_s", "a latency")):
        note_cost(what, getattr(profile, name), source.at(name), problems, may_be_nothing=True)
    rate = profile.bandwidth_bps
    rates = {"up": rate.up, "down": rate.down} if isinstance(rate, Bandwidth) else {} if rate is None else {"": rate}
    for way, bps in rates.items():
        path = tuple(filter(None, ("bandwidth_bps", way)))
        if bps < _SLOW_BPS:
            text = f"{bps:g} bit/s are below 1 kbit/s; given in Mbit/s? Then write {bps:g} Mbit/s"
            problems.note(source.problem(path, text))
        elif bps > _FAST_BPS:
            problems.note(source.problem(path, f"{bps:g} bit/s are above 1000 Tbit/s; a slip in the unit?"))


def note_cost(
    what: str, value: CostValue | None, source: Source, problems: Problems, may_be_nothing: bool = False
) -> None:
    """Add a note where a cost is nothing at all, or typically of a size that suggests another unit."""
    if value is None:
        return
    if _is_nothing(value):
        if not may_be_nothing:
            problems.note(source.problem((), f"{what} of exactly 0 s; is a value missing?"))
        return
    typical_s, is_number = _of(value, "typical_s"), isinstance(value, int | float)
    told = f"{what} of {typical_s:g} s{'' if is_number else ' (the median)'}"
    if typical_s > _LONG_S:
        right = f" Then write {typical_s:g} ms" if is_number else ""
        problems.note(source.problem((), f"{told} is above {_LONG_S} s; given in ms?{right}"))
    elif typical_s < _SHORT_S:
        problems.note(source.problem((), f"{told} is below 1 us; given in ms? A unit may be written, as in 0.4 ms"))


def _is_nothing(value: CostValue) -> bool:
    """Return whether every draw of a cost is 0 ns."""
    most_s = _of(value, "most_s")
    return most_s < _SHORT_S and to_ns(most_s) == 0


def _of(value: CostValue, what: Literal["most_s", "typical_s"]) -> float:
    """Return what is known of a cost's draws; of a number, it is the number."""
    assert not isinstance(value, CsvSamples), "CSV samples are read in when a profile is bound"
    return float(getattr(value, what) if isinstance(value, Law) else value)
