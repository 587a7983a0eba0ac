"""Find out whether a network is a chain of layers that can be batched by hand, and which."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx, nn

from hsgd_emu.learning.dropout import MaskedDropout
from hsgd_emu.learning.examine import has_hooks
from hsgd_emu.learning.models import ChannelNorm

Link = tuple[str, nn.Module]
"""A layer's name in the network ("" for what is written as a function) and the layer."""


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, ChannelNorm | MaskedDropout) or super().is_leaf_module(m, module_qualified_name)


def find_chain(model: nn.Module, x: torch.Tensor) -> list[Link] | None:
    """Return a network's layers in the order they are applied, or None if it is no chain.

    A chain applies each layer to the result of the one before and to nothing else. Functions written in `forward`
    (relu, max_pool2d, flatten, view) become the layers they stand for. The chain found is held against the network
    itself on samples x (B, ...) in evaluation mode: hooks and other surprises make it None.
    """
    with torch.random.fork_rng(devices=[]):
        try:
            traced = copy.deepcopy(model).train()
            graph = _Tracer().trace(traced)
        except Exception:  # whatever a network does that cannot be followed: it is no chain
            return None
        if has_hooks(model) or not _same_buffers(model, traced):
            return None
        links = _follow(graph, dict(model.named_modules()))
        return links if links is not None and _is_same(model, links, x) else None


def _same_buffers(model: nn.Module, traced: nn.Module) -> bool:
    """Return whether following the network left its buffers alone."""
    pairs = zip(model.buffers(), traced.buffers(), strict=True)
    return all(type(other) is type(one) and torch.equal(one, other) for one, other in pairs)


def _follow(graph: fx.Graph, modules: Mapping[str, nn.Module]) -> list[Link] | None:
    """Walk from the input to the output."""
    links: list[Link] = []
    sizes: set[fx.Node] = set()  # x.size(0) and the like, wanted by view
    last: fx.Node | None = None
    for node in graph.nodes:
        if node.op == "placeholder":
            if last is not None and node.users:
                return None
            last = last or node
        elif node.op == "output":
            is_end = node.args == (last,)
            return [link for link in links if type(link[1]) is not nn.Identity] if is_end else None
        elif _is_batch_size(node, last, sizes):
            sizes.add(node)
        else:
            layer = _layer(node, last, modules, sizes)
            if layer is None:
                return None
            links.append(layer)
            last = node
    return None


def _is_batch_size(node: fx.Node, last: fx.Node | None, sizes: set[fx.Node]) -> bool:
    if node.op == "call_method" and node.target == "size":
        return node.args[0] is last
    if node.op == "call_function" and node.target is getattr:
        return node.args == (last, "shape")
    return node.op == "call_function" and node.target is operator.getitem and node.args[0] in sizes


def _layer(node: fx.Node, last: fx.Node | None, modules: Mapping[str, nn.Module], sizes: set[fx.Node]) -> Link | None:
    if not node.args or node.args[0] is not last:
        return None
    if node.op == "call_module":
        name = str(node.target)
        module = modules[name]
        return (name, module) if len(node.args) == 1 and not node.kwargs else None
    make = _FUNCTIONS.get(node.target)
    if make is None or any(isinstance(a, fx.Node) and a not in sizes for a in [*node.args[1:], *node.kwargs.values()]):
        return None
    try:
        return "", make(*node.args[1:], **node.kwargs)
    except (TypeError, ValueError):
        return None


def _relu(inplace: bool = False) -> nn.Module:
    return nn.ReLU()


def _flatten(start_dim: int = 0, end_dim: int = -1) -> nn.Module:
    return nn.Flatten(start_dim, end_dim)


def _view(*shape: Any) -> nn.Module:
    sizes = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape
    if len(sizes) != 2 or isinstance(sizes[1], fx.Node):
        raise ValueError("only (batch, features) is a layer")
    return nn.Flatten()


def _max_pool2d(
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> nn.Module:
    return nn.MaxPool2d(kernel_size, stride or None, padding, dilation, return_indices, ceil_mode)


_FUNCTIONS: dict[Any, Callable[..., nn.Module]] = {
    torch.relu: _relu,
    nn.functional.relu: _relu,
    "relu": _relu,
    torch.tanh: nn.Tanh,
    torch.sigmoid: nn.Sigmoid,
    nn.functional.max_pool2d: _max_pool2d,
    torch.max_pool2d: _max_pool2d,
    torch.flatten: _flatten,
    "flatten": _flatten,
    "view": _view,
    "reshape": _view,
}


def _is_same(model: nn.Module, links: list[Link], x: torch.Tensor) -> bool:
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            y = x
            for _, layer in links:
                y = layer(y)
            expected = model(x)
    except Exception:  # what does not run as a chain is none
        return False
    finally:
        model.train(was_training)
    return isinstance(expected, torch.Tensor) and torch.equal(y, expected)
