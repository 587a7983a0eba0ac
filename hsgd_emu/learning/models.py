"""Classifiers by name. Settings of the paper's networks: its public code (see docs/models.md)."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.parameter import is_lazy

from hsgd_emu.config.run_schema import DataSpec, ModelSpec
from hsgd_emu.engine.messages import ModelShape
from hsgd_emu.errors import ConfigError, listed
from hsgd_emu.learning.data import load_dataset
from hsgd_emu.learning.data.builtin import SHAPES
from hsgd_emu.learning.examine import copied
from hsgd_emu.learning.factory import import_factory
from hsgd_emu.learning.outputs import Choose, Key, OutputError, described, is_first, logits_of, parts_of
from hsgd_emu.learning.own_code import modules_of
from hsgd_emu.learning.seeded import seeded_generators
from hsgd_emu.rng import seed_of

_NUM_TRIED = 4  # samples in the batches that a model is tried with


def build_model(spec: ModelSpec, input_shape: Sequence[int], num_classes: int, seed: int, base: Path) -> nn.Module:
    """Return a freshly initialised classifier on the CPU; the same for every case of a seed.

    What a factory draws from the generators of PyTorch, NumPy or Python follows the seed as well; lazy modules have
    got their shapes; of several outputs the network returns the one that is meant.

    input_shape: of one sample, (C, H, W) for images.
    Raises:  ConfigError: the model does not fit the data, or the user's factory fails.
    """
    num_outputs = _num_outputs(spec, num_classes)
    module, own, _ = spec.name.partition(":")
    # An own network finds its modules, also those that it imports only when it is built or used.
    with _explained(spec, input_shape, base), modules_of(base, module) if own else nullcontext():
        make = _maker(spec, tuple(input_shape), num_outputs, base)
        # Layers draw their first weights from the global generators: lend them, seeded, and put them back.
        with seeded_generators(seed_of(seed, "model")):
            model = make()
            _materialise(model, input_shape)
            if _has_several_outputs(model, spec, input_shape, num_classes):
                model.register_forward_hook(Choose(spec.output))
    return model


def _num_outputs(spec: ModelSpec, num_classes: int) -> int:
    num_outputs = spec.num_outputs or (1000 if spec.name == "vgg11" else num_classes)
    if num_outputs < num_classes:
        text = f"{num_outputs} outputs for {num_classes} classes; {num_classes} or more are needed"
        raise ConfigError.of("", "model.num_outputs", text)
    return num_outputs


@contextmanager
def _explained(spec: ModelSpec, input_shape: Sequence[int], base: Path) -> Iterator[None]:
    """Turn whatever a network's own code raises into a ConfigError."""
    try:
        yield
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        why = str(error) if isinstance(error, OutputError) else in_short(error)
        text = f"'{spec.name}' does not work on samples of shape {tuple(input_shape)}: {why}"
        text += f" (modules are sought in {base} first)" if ":" in spec.name else ""
        raise ConfigError.of("", "model", text) from error


def in_short(error: BaseException) -> str:
    """Return an error of a network as one line."""
    return ": ".join([type(error).__name__, *str(error).splitlines()[:1]])


def _materialise(model: nn.Module, input_shape: Sequence[int]) -> None:
    """Run samples through, so that lazy modules get their shapes; what has its shape already keeps its values."""
    for training in (False, True):  # some parts are used in training only
        tensors = [*model.parameters(), *model.buffers()]
        if not any(is_lazy(tensor) for tensor in tensors):
            break
        before = [(tensor, tensor.detach().clone()) for tensor in tensors if not is_lazy(tensor)]
        with torch.no_grad():
            model.train(training)(torch.rand(_NUM_TRIED, *input_shape, dtype=_dtype(model)))
            for tensor, value in before:
                tensor.copy_(value)
    else:
        lazy = [name for name, parameter in model.named_parameters() if is_lazy(parameter)]
        if lazy:
            raise OutputError(f"it never uses its lazy parameters {listed(lazy)}, which so have no shape")
    model.train()


def _dtype(model: nn.Module) -> torch.dtype:
    return next(iter(model.parameters())).dtype


def _has_several_outputs(model: nn.Module, spec: ModelSpec, input_shape: Sequence[int], num_classes: int) -> bool:
    """Run a few samples through, so that a model that does not fit is found before a long run.

    Returns whether what it returns is more than a tensor.
    """
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError("it has no parameters to train")
    name = next((name for name, parameter in model.named_parameters() if parameter.is_complex()), None)
    if name is not None:
        raise OutputError(f"its parameter '{name}' is complex; keep the two parts as real numbers (view_as_complex)")
    if ":" not in spec.name and not spec.options:
        output = _output(model, torch.zeros(1, *input_shape, dtype=_dtype(model)), False)
        _check_logits(output, 1, spec.output, num_classes)
        return _are_several([output], spec.output)
    found = []
    for num_samples, training in ((_NUM_TRIED, False), (1, False), (_NUM_TRIED, True)):
        x = torch.rand(num_samples, *input_shape, dtype=_dtype(model))
        found.append(_output(copied(model), x, training))
        _check_logits(found[-1], num_samples, spec.output, num_classes)
    return _are_several(found, spec.output)


def _output(model: nn.Module, x: torch.Tensor, training: bool) -> Any:
    was_training = model.training
    with torch.no_grad():
        output = model.train(training)(x)
    model.train(was_training)
    return output


def _check_logits(output: Any, num_samples: int, chosen: Key | None, num_classes: int) -> None:
    """Raise OutputError where an output holds no logits of a batch."""
    logits = logits_of(output, chosen)
    if not logits.is_floating_point():
        raise OutputError(f"its output is {logits.dtype}; logits are floating-point numbers")
    if logits.dim() != 2 or len(logits) != num_samples or logits.shape[1] < num_classes:
        shapes = f"shape {tuple(logits.shape)}; ({num_samples}, {num_classes} or more) is needed"
        raise OutputError(f"its output of {num_samples} sample{'s' * (num_samples > 1)} has {shapes}")


def _are_several(outputs: Sequence[Any], chosen: Key | None) -> bool:
    """Return whether outputs in evaluation and in training are more than a tensor, and hold them to each other."""
    several = [output for output in outputs if not isinstance(output, torch.Tensor)]
    if not several and chosen is not None:
        raise OutputError(f"it has a single output, none that is called {chosen!r}; leave model.output out")
    if 0 < len(several) < len(outputs) and not is_first(several[0], chosen):
        text = f"sometimes its outputs are {described(parts_of(several[0]))}, sometimes it has a single one"
        raise OutputError(f"{text} (in training or in evaluation); only the first is always there")
    return bool(several)


def _maker(spec: ModelSpec, input_shape: tuple[int, ...], num_outputs: int, base: Path) -> Callable[[], nn.Module]:
    """Return what makes the model; the user's own module is imported with the same random numbers for every seed."""
    if ":" in spec.name:
        with seeded_generators(0):
            factory = import_factory(spec.name, base)
        return functools.partial(_made, factory, input_shape=input_shape, num_classes=num_outputs, **spec.options)
    own: dict[str, Callable[[], nn.Module]] = {
        "softmax_regression": lambda: softmax_regression(input_shape, num_outputs),
        "mlp": lambda: mlp(input_shape, spec.hidden or (200,), num_outputs),
        "cifar_cnn": lambda: cifar_cnn(num_outputs),
        "femnist_cnn": lambda: femnist_cnn(num_outputs),
    }
    return own.get(spec.name) or functools.partial(_torchvision, spec, num_outputs)


def _made(factory: Callable[..., Any], **options: Any) -> nn.Module:
    model = factory(**options)
    if not isinstance(model, nn.Module):
        raise TypeError(f"the factory returned a {type(model).__name__}, not a torch.nn.Module")
    return model


def _torchvision(spec: ModelSpec, num_outputs: int) -> nn.Module:
    from torchvision import models

    options = dict(spec.options)
    if spec.name in ("googlenet", "inception_v3"):
        options = {"aux_logits": False, "init_weights": True} | options
    model = models.get_model(spec.name, weights=None, num_classes=num_outputs, **options)
    assert isinstance(model, nn.Module)
    return model


def softmax_regression(input_shape: Sequence[int], num_outputs: int) -> nn.Module:
    """Return a linear classifier that starts at zero."""
    linear = nn.Linear(math.prod(input_shape), num_outputs)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(nn.Flatten(), linear)


def mlp(input_shape: Sequence[int], hidden: Sequence[int], num_outputs: int) -> nn.Module:
    """Return fully connected layers with ReLU between."""
    widths = [math.prod(input_shape), *hidden]
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], num_outputs))


def cifar_cnn(num_outputs: int) -> nn.Module:
    """Return the small CIFAR network (LeNet-like) of the paper's public code, for 3x32x32 images."""
    return nn.Sequential(
        *(nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Flatten(),
        *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU()),
        nn.Linear(84, num_outputs),
    )


class ChannelNorm(nn.Module):
    """Local response normalisation: x / (k + alpha / size * sum of x^2 over neighbouring channels)^beta.

    The same function as torch.nn.LocalResponseNorm, whose pooling over channels takes three times as long on a CPU
    (6.0 against 1.9 ms forward and backward for 20 x 32 x 14 x 14, one core).
    """

    def __init__(self, size: int, alpha: float, beta: float, k: float) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        squares = F.pad(x * x, (0, 0, 0, 0, self.size // 2, (self.size - 1) // 2))
        around = squares.narrow(-3, 0, x.shape[-3])
        for shift in range(1, self.size):
            around = around + squares.narrow(-3, shift, x.shape[-3])
        return x * (around * (self.alpha / self.size) + self.k).pow(-self.beta)


def femnist_cnn(num_outputs: int) -> nn.Module:
    """Return the FEMNIST network of the paper's public code, for 1x28x28 images."""
    norm = functools.partial(ChannelNorm, size=4, alpha=0.001 / 9, beta=0.75, k=1.0)
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), norm()),
        *(nn.Conv2d(32, 32, 5, padding=2), nn.ReLU(), norm(), nn.MaxPool2d(2)),
        nn.Flatten(),
        *(nn.Linear(1568, 256), nn.ReLU(), nn.Linear(256, num_outputs)),
    )


def sized_model(data: DataSpec, spec: ModelSpec, base: Path) -> nn.Module:
    """Return a model of which only the sizes mean something; the data are loaded only where their shape is not known.

    Runs the code of a `module:factory`.
    """
    if data.dataset in SHAPES:
        input_shape, num_classes = SHAPES[data.dataset]
    else:
        dataset = load_dataset(data, base)
        input_shape, num_classes = dataset.train_x.shape[1:], dataset.num_classes
    return sized_for(spec, input_shape, num_classes, base)


def sized_for(spec: ModelSpec, input_shape: Sequence[int], num_classes: int, base: Path) -> nn.Module:
    """Return a model of which only the sizes mean something, for samples of a shape."""
    if ":" in spec.name:
        # Of what its own code makes nothing is known: lazy modules have no size before a sample went through.
        return build_model(spec, input_shape, num_classes, 0, base)
    num_outputs = _num_outputs(spec, num_classes)
    with seeded_generators(0), _explained(spec, input_shape, base), torch.device("meta"):
        return _maker(spec, tuple(input_shape), num_outputs, base)()


def has_convolutions(model: nn.Module) -> bool:
    """Return whether a network works on images: whether some parameter has more than two dimensions."""
    return any(parameter.dim() > 2 for parameter in model.parameters())


def model_bytes(model: nn.Module) -> int:
    """Return the bytes of a model's parameters and buffers."""
    return _bytes([*model.parameters(), *model.buffers()])


def model_shape(model: nn.Module) -> ModelShape:
    """Return what a model is made of."""
    return ModelShape(tuple(tensor.numel() for tensor in model.parameters()), _bytes(model.buffers()))


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
