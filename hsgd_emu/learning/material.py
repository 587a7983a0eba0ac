"""What a run file only names: data and own code, as this process has loaded them, and what tells networks apart."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import fields, replace
from functools import cached_property, lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from hsgd_emu.config.run_schema import DataSpec, ModelSpec
from hsgd_emu.config.schema import is_factory
from hsgd_emu.config.server_schema import ServerSpec
from hsgd_emu.errors import ConfigError
from hsgd_emu.learning.data import Dataset, load_dataset
from hsgd_emu.learning.examine import copied
from hsgd_emu.learning.facts import DATA, FORMAT, LEARNING_CODE, LIBRARIES, differences, of_model, of_modules, of_rules
from hsgd_emu.learning.models import build_model
from hsgd_emu.learning.outputs import logits_of
from hsgd_emu.learning.own_code import OwnCode
from hsgd_emu.learning.seeded import seeded_generators
from hsgd_emu.learning.servers import Outer, server_rule

_TRIED = 2  # training samples that own models are told apart by; batch normalisation needs two


class Material:
    """The data set and what builds the models. Own code is loaded anew for each; see `OwnCode`."""

    def __init__(
        self,
        data: DataSpec,
        model: ModelSpec,
        base: Path,
        progress: Callable[[str], None] | None = None,
        warn: Callable[[str], None] | None = None,
        rules: Sequence[ServerSpec] = (),
    ) -> None:
        """rules: the servers' rules that are the user's own."""
        self.model, self.base = model, base
        self.has_own_model = ":" in model.name
        self._code = OwnCode(base) if self.has_own_model or is_factory(data.dataset) or rules else None
        with self.active():
            self.dataset: Dataset = load_dataset(data, base, progress, warn)
        self._own_rules = rules
        self._models: dict[int, str] = {}
        self._told: dict[str, str] = {}
        """The own modules that `facts` told of."""

    @contextmanager
    def active(self) -> Iterator[None]:
        """Let own code find the modules that it has imported so far; all learning is to be done inside."""
        with self._code.active() if self._code else nullcontext():
            yield

    @cached_property
    def data_hash(self) -> str:
        """The hash of the data set's content."""
        return content_hash(self.dataset)

    def shrink(self) -> None:
        """Keep the hash of the data set, and as much of it as tells models apart."""
        found = self.dataset
        assert self.data_hash
        self.dataset = replace(found, train_x=found.train_x[:_TRIED].copy(), train_y=found.train_y[:_TRIED].copy())
        self.dataset = replace(self.dataset, test_x=found.test_x[:1].copy(), test_y=found.test_y[:1].copy())

    def build(self, seed: int) -> torch.nn.Module:
        """Return the initial model of a seed, on the CPU."""
        with self.active():
            return build_model(self.model, self.dataset.train_x.shape[1:], self.dataset.num_classes, seed, self.base)

    def model_to_learn(self, seed: int) -> torch.nn.Module:
        """Return the initial model of a seed, the same each time.

        Raises:  ConfigError: an own factory gives another one than before.
        """
        model = self.build(seed)
        if self.has_own_model and self._model_hash(model) != self.model_hash(seed):
            text = (
                f"'{self.model.name}' made two different networks for seed {seed}: what its code reads (files, the "
                "environment) has changed, or it draws random numbers that are not seeded"
            )
            raise ConfigError.of("", "model", text)
        return model

    def model_hash(self, seed: int) -> str:
        """Return the hash of the initial model of a seed, and of what it computes."""
        if seed not in self._models:
            self._models[seed] = self._model_hash(self.build(seed))
        return self._models[seed]

    def _model_hash(self, model: torch.nn.Module) -> str:
        x, y = self.dataset.train_x[:_TRIED], self.dataset.train_y[:_TRIED]
        scaled = x.astype(np.float64) / (255 if x.dtype == np.uint8 else 1)
        with self.active():
            return fingerprint(model, torch.from_numpy(scaled), torch.from_numpy(y))

    def facts(self, seeds: Iterable[int]) -> dict[str, str]:
        """Return a version or hash of all that the learning of some seeds depends on and the run file only names.

        Data are told by their content, wherever they lie. Own code is told by every module that was really imported,
        and by the models that it made: their weights may come from a file, what they compute from the environment.
        """
        models: dict[str, str] = {}
        if self.has_own_model:
            for seed in seeds:
                models |= of_model(seed, self.model_hash(seed))
        rules = of_rules(self._rules)
        self._told = self._modules()
        return self.loaded() | models | rules

    @cached_property
    def _rules(self) -> dict[str, str]:
        """By what names it in the run file: the hash of what each own rule of servers computes."""
        if not self._own_rules:
            return {}
        model = self.build(0)
        with self.active():
            return {repr(rule): rule_fingerprint(rule, self.base, model) for rule in self._own_rules}

    def try_rules(self) -> None:
        """Let the servers' own rules take a step.

        Raises:  ConfigError: one does not work.
        """
        assert self._rules is not None

    def loaded(self) -> dict[str, str]:
        """Return the facts without those of models: versions, the data, and the modules imported so far."""
        versions = {"format": str(FORMAT), **{name: _version(name) for name in LIBRARIES}}
        return versions | {LEARNING_CODE: learning_code_hash(), DATA: self.data_hash} | self._modules()

    def _modules(self) -> dict[str, str]:
        return of_modules(self._code.hashes()) if self._code else {}

    def changed(self) -> list[str]:
        """Return what is not as `facts` told: the data in memory, own modules and their files, modules that are new."""
        data = [] if content_hash(self.dataset) == self.data_hash else [f"{DATA} has changed"]
        files = self._code.changed() if self._code else []
        modules = differences(self._told, self._modules() | of_modules(dict.fromkeys(files, "")))
        return [*data, *modules]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # a machine that only trains has not all of them
        return "not installed"


@lru_cache
def learning_code_hash() -> str:
    """Return the hash of the sources of this package that learn: a checkout changes without another version."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    both = [package / name for name in ("metrics.py", "rng.py")]
    for path in sorted([*package.glob("learning/**/*.py"), *package.glob("engine/*.py"), *both]):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def content_hash(dataset: Dataset) -> str:
    """Return the hash of what a data set holds."""
    digest = hashlib.sha256()
    for field in fields(Dataset):
        value = getattr(dataset, field.name)
        array = np.ascontiguousarray([] if value is None else value)
        digest.update(f"{field.name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data if array.size else b"")
    return digest.hexdigest()


_STEPS = 2  # of training: what a first layer of zeros hides shows after one
_LEARNING_RATE = 0.1
_NOTHING = 1e-9  # a tensor so much smaller than the largest is rounding of zero, which differs with the processor


def fingerprint(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> str:
    """Return the hash of a network's state, to the bit, and of what it makes of a batch in evaluation and in training.

    What it computes counts to six digits, in double precision where it can, so that processors agree. The model is left
    as it is.
    """
    digest = hashlib.sha256()
    for name, value in {**dict(model.named_buffers()), **model.state_dict()}.items():
        digest.update(name.encode())
        digest.update(_content(value) if isinstance(value, torch.Tensor) else repr(value).encode())
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    modes = [name for name, module in model.named_modules() if module.training]
    digest.update(repr((trained, modes, _behaviour(model, x, y))).encode())
    return digest.hexdigest()


def rule_fingerprint(spec: ServerSpec, base: Path, model: nn.Module) -> str:
    """Return the hash of what an own rule of servers makes of a network's parameters in two steps, to six digits.

    Raises:  ConfigError: it does not work.
    """
    outer = Outer(server_rule(spec, base), spec)
    x = {name: p.detach().double().clone() for name, p in model.named_parameters() if p.requires_grad}
    found: list[torch.Tensor] = []
    with _alone():
        for _ in range(_STEPS):
            average = {name: tensor.flatten().roll(1).view_as(tensor) / 2 for name, tensor in x.items()}
            x = {name: tensor.clone() for name, tensor in outer.step(x, average).items()}
            found += x.values()
    return hashlib.sha256(repr(_figures(found)).encode()).hexdigest()


def _content(tensor: torch.Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return f"{tensor.dtype} {tuple(tensor.shape)}".encode() + flat.view(torch.uint8).numpy().tobytes()


def _behaviour(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> list[str]:
    """Return what a network computes, in short; what it raises where it cannot."""
    kinds = []
    for dtype in (torch.float64, torch.float32):
        try:
            with _alone():
                return _figures(_computed(copied(model).to(dtype), x.to(dtype), y))
        except Exception as error:  # the user's own code
            kinds.append(type(error).__name__)
    return kinds


def _computed(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> list[torch.Tensor]:
    """Return outputs, gradients and buffers of a few steps of training, and what is evaluated around them."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with torch.no_grad():
        found = [logits_of(model.eval()(x))]
    model.train()
    for _ in range(_STEPS):
        logits = logits_of(model(x))
        gradients = torch.autograd.grad(F.cross_entropy(logits, y), parameters, allow_unused=True)
        given = [(p, gradient) for p, gradient in zip(parameters, gradients, strict=True) if gradient is not None]
        found += [logits, *(gradient for _, gradient in given)]
        with torch.no_grad():
            for parameter, gradient in given:
                parameter.sub_(gradient, alpha=_LEARNING_RATE)
    with torch.no_grad():
        return [*found, *model.buffers(), logits_of(model.eval()(x))]


def _figures(tensors: list[torch.Tensor]) -> list[str]:
    """Return two numbers of each tensor: its norm, and how it leans to its end."""
    flat = [tensor.detach().double().reshape(-1) for tensor in tensors]
    norms = [float(values.norm()) for values in flat]
    largest = max(norms)
    found = []
    for values, norm in zip(flat, norms, strict=True):
        if norm <= _NOTHING * largest:
            found.append("0")
            continue
        rising = torch.linspace(1, 2, len(values), dtype=torch.float64)
        leaning = float(values @ rising) / (norm * len(values) ** 0.5)
        found.append(f"{norm:.6g} {round(leaning, 6) + 0.0:.6f}")
    return found


@contextmanager
def _alone() -> Iterator[None]:
    """Seed all generators, take one thread, and put everything back."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with seeded_generators(0):
            yield
    finally:
        torch.set_num_threads(threads)
