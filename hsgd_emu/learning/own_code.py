"""The user's own modules: loaded anew for each run, from their sources, and told by the bytes that were run."""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache, lru_cache
from importlib.machinery import EXTENSION_SUFFIXES, PathFinder, SourceFileLoader
from importlib.metadata import distributions
from pathlib import Path
from types import CodeType, ModuleType

from hsgd_emu.errors import ConfigError

_KEPT = ("__main__", "__mp_main__", "pydev", "_pydev", "debugpy")
"""Modules that stay, and those that begin so: what a debugger needs at any moment lies where an editor put it."""


class OwnCode:
    """The own modules of one run: every one that its code imports, from wherever, that is of no installed distribution.

    While it is `active`, they alone are in sys.modules and sys.path is as they left it; otherwise all is as if they had
    never been imported, so that the next run, and whoever imported modules of these names before, is none the wiser.
    Sources are compiled from the bytes that the hash is of: a `__pycache__` may be older than it seems.
    Not modelled: modules that were made in memory, which cannot be loaded again and stay as they are.
    """

    def __init__(self, base: Path) -> None:
        """base: sought in first."""
        self.base = str(base.resolve())
        self._path: list[str] = []
        """What its code has added to sys.path."""
        self._modules: dict[str, ModuleType] = {}
        self._theirs: dict[str, ModuleType] = {}
        """Modules of others, which stay outside while this is active."""
        self._hashes: dict[str, str] = {}
        self._files: dict[str, tuple[str, str]] = {}
        """By path: the module's name and the hash of what was run."""

    @contextmanager
    def active(self) -> Iterator[None]:
        """Let the run's own modules be the ones there are; those imported meanwhile are added."""
        global _active
        if _active is self:
            yield
            return
        before, path_before, self._theirs = _active, list(sys.path), _taken_out(_own_modules())
        _put_in(self._modules)
        sys.path[:] = dict.fromkeys([*self._path, *path_before, self.base])
        importlib.invalidate_caches()
        _active = self
        try:
            yield
        finally:
            _active = before
            self._path = [entry for entry in sys.path if entry not in (*path_before, self.base)]
            sys.path[:] = path_before
            self._modules = _taken_out(_own_modules())
            _put_in(self._theirs)

    @contextmanager
    def loading(self, module: str) -> Iterator[None]:
        """Let it be active, and modules be sought in its folder before all others.

        module: the one that a run file names, even where an installed one of that name is loaded.
        """
        with self.active():
            top = module.partition(".")[0]
            if top in sys.modules and PathFinder.find_spec(top, [self.base]) and top not in _own_modules():
                inside = {n: m for n, m in list(sys.modules.items()) if n.partition(".")[0] == top}
                self._theirs |= _taken_out(inside)
            sys.path.insert(0, self.base)
            try:
                yield
            finally:
                with suppress(ValueError):  # the user's code may have changed the path itself
                    sys.path.remove(self.base)

    def hashes(self) -> dict[str, str]:
        """Return by name the hash of each module that was imported so far."""
        for name, module in (_own_modules() if _active is self else self._modules).items():
            file = vars(module).get("__file__")
            if name not in self._hashes and file is not None:
                self.note(name, file, _content(module, file))
        return dict(sorted(self._hashes.items()))

    def note(self, name: str, file: str, content: bytes) -> None:
        """Note what a module was loaded from.

        Raises:  ConfigError: this process loaded a compiled module before it was changed, and cannot load it again.
        """
        found = hashlib.sha256(content).hexdigest()
        if file.endswith(tuple(EXTENSION_SUFFIXES)) and _compiled.setdefault(file, found) != found:
            text = f"the compiled module '{name}' has changed since this process loaded it; start a new process"
            raise ConfigError.of(file, "", text)
        known = self._hashes.get(name, found)
        # One name may stand for several files, each loaded by its path.
        self._hashes[name] = found if known == found else hashlib.sha256(f"{known} {found}".encode()).hexdigest()
        self._files[file] = name, found

    def changed(self) -> list[str]:
        """Return the names of modules whose files are no longer what was loaded."""
        return sorted({name for file, (name, found) in self._files.items() if _hash_of_file(file) not in (found, None)})


_active: OwnCode | None = None
_compiled: dict[str, str] = {}
"""By path: the hash of each compiled module when this process first loaded it."""


@contextmanager
def modules_of(base: Path, module: str) -> Iterator[None]:
    """Let a module be sought in `base` first: as part of the run at work there, else by itself."""
    code = _active if _active is not None and _active.base == str(base.resolve()) else OwnCode(base)
    with code.loading(module):
        yield


# --- modules ------------------------------------------------------------------------------------------------


def _own_modules() -> dict[str, ModuleType]:
    return {name: module for name, module in list(sys.modules.items()) if _is_own(name, module)}


def _is_own(name: str, module: object) -> bool:
    """Return whether a module is neither of Python, nor of an installed distribution, nor ours."""
    if not isinstance(module, ModuleType) or name.startswith(_KEPT):
        return False
    file, folders = vars(module).get("__file__"), vars(module).get("__path__")
    if file is None:  # a namespace package, or made in memory
        return folders is not None and bool(places := list(folders)) and all(map(is_own_file, places))
    return isinstance(file, str) and is_own_file(file)


@cache
def is_own_file(file: str) -> bool:
    """Return whether a module's file is of the user's own; so are those of an editable installation."""
    if not os.path.isabs(file) or not {"site-packages", "dist-packages"}.isdisjoint(Path(file).parts):
        return False
    if any(Path(place).is_relative_to(folder) for place in (file, os.path.realpath(file)) for folder in _not_own()):
        return False
    # `pip install --target` puts distributions anywhere.
    roots = [Path(entry) for entry in sys.path if entry and Path(file).is_relative_to(entry)]
    return not any(Path(file).relative_to(root).parts[:1] in _distributed(root) for root in roots)


@lru_cache
def _not_own() -> tuple[Path, ...]:
    """Return the folders of Python's own modules and of this package."""
    folders = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), str(Path(__file__).parents[1])]
    return tuple({Path(form) for folder in folders for form in (folder, os.path.realpath(folder))})


@lru_cache(maxsize=256)
def _distributed(root: Path) -> frozenset[tuple[str, ...]]:
    """Return the first parts of the paths that installed distributions have below a folder."""
    installed = [d for d in distributions(path=[str(root)]) if d.read_text("RECORD") is not None]
    return frozenset(file.parts[:1] for one in installed for file in one.files or ())


def _taken_out(modules: dict[str, ModuleType]) -> dict[str, ModuleType]:
    """Take modules out of sys.modules, and out of the packages around them that stay there; return them."""
    for name, module in modules.items():
        del sys.modules[name]
        package, _, last = name.rpartition(".")
        if package in sys.modules and vars(sys.modules[package]).get(last) is module:
            delattr(sys.modules[package], last)
    return modules


def _put_in(modules: dict[str, ModuleType]) -> None:
    sys.modules.update(modules)
    for name, module in modules.items():
        package, _, last = name.rpartition(".")
        if package in sys.modules and package not in modules:
            setattr(sys.modules[package], last, module)


# --- sources ------------------------------------------------------------------------------------------------

_usual = SourceFileLoader.get_code


def _get_code(loader: SourceFileLoader, fullname: str) -> CodeType | None:
    """Return the code of a module: of an own one from its source, which is noted, whatever lies in `__pycache__`."""
    file = loader.get_filename(fullname)
    if _active is None or not is_own_file(file):
        return _usual(loader, fullname)
    source = loader.get_data(file)
    _active.note(fullname, file, source)
    code: CodeType = loader.source_to_code(source, file)
    return code


# On the loader itself, so that a module which is loaded by its path alone, beside all finders, is noted too.
setattr(SourceFileLoader, SourceFileLoader.get_code.__name__, _get_code)


def _content(module: ModuleType, file: str) -> bytes:
    """Return what a module was loaded from: its file, or the part of a zip file."""
    if os.path.isfile(file):
        return Path(file).read_bytes()
    get_data = getattr(getattr(module, "__loader__", None), "get_data", None)
    return bytes(get_data(file)) if get_data else b""


def _hash_of_file(file: str) -> str | None:
    """Return the hash of a file, empty where it is gone, None for what is no file by itself."""
    try:
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()
    except NotADirectoryError:  # in a zip file
        return None
    except OSError:
        return ""
