"""The fold: a linear layer that sees every feature several times learns as a smaller one that sees it once.

torchvision's vgg11 enlarges a 1x1 feature map to 7x7 before Linear(25088, 4096) when images are 32x32: each of 512
features arrives 49 times, so the 49 columns that read it get the same gradient g. Their sum A' (4096 x 512) alone
decides what the network computes, and changes by 49 times the learning rate times g: training A' that way is exactly
the same training, with momentum and weight decay too. Single columns differ from their start W0 only by what they
share, so the full weight is W0 + (A' - A'0) / 49 (with weight decay the part that is left of W0 shrinks: that factor is
carried along as one more parameter, without a gradient).

Exact for SGD with momentum and weight decay; not with gradients clipped by their norm, nor for Adam, whose steps do not
grow with the gradients: then nothing is folded.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from hsgd_emu.config.run_schema import TrainSpec, is_adam


def is_exact_for(train: TrainSpec) -> bool:
    """Return whether a folded layer learns as the whole one does."""
    return not is_adam(train) and not train.clip_norm and not train.correction


@dataclass(frozen=True)
class Fold:
    """How one linear layer is folded.

    weight: name of its weight; inner, outer: height and width of the feature map before and after it was enlarged;
    full: the weight at the start (O, C x outer).
    """

    weight: str
    inner: tuple[int, int]
    outer: tuple[int, int]
    full: torch.Tensor

    @property
    def kept(self) -> str:
        """Name of the parameter that tells how much of the start is left after weight decay."""
        return f"{self.weight}.kept"

    @property
    def factor(self) -> int:
        """How often each feature is seen."""
        return self.outer[0] * self.outer[1] // (self.inner[0] * self.inner[1])

    def _shape(self) -> tuple[int, ...]:
        (h, w), (height, width) = self.inner, self.outer
        return len(self.full), -1, h, height // h, w, width // w

    def folded(self) -> torch.Tensor:
        """Return the start A'0 (O, C x inner): the columns that see the same feature, summed."""
        return self.full.view(self._shape()).sum((3, 5)).flatten(1)

    def restored(self, folded: torch.Tensor, kept: float = 1.0) -> torch.Tensor:
        """Return the full weight (O, C x outer)."""
        change = (folded - self.folded() * kept) / self.factor
        spread = change.view(len(folded), -1, self.inner[0], 1, self.inner[1], 1)
        return (self.full.view(self._shape()) * kept + spread).view(self.full.shape)


def find_fold(links: list[tuple[str, nn.Module]], sample: torch.Tensor) -> tuple[int, Fold] | None:
    """Return the place of the pooling that a fold makes needless, and the fold; None where there is none.

    Looked for: an adaptive pooling whose output repeats each entry of its input a whole number of times, then flatten,
    then a linear layer. sample: a batch (B, ...).
    """
    x = sample
    with torch.no_grad():
        for place, (_, module) in enumerate(links[:-2]):
            flatten, (name, linear) = links[place + 1][1], links[place + 2]
            y = module.eval()(x)
            if (
                isinstance(module, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d)
                and type(flatten) is nn.Flatten
                and type(linear) is nn.Linear
                and _repeats(x, y)
            ):
                inner, outer = (x.shape[2], x.shape[3]), (y.shape[2], y.shape[3])
                return place, Fold(f"{name}.weight", inner, outer, linear.weight.detach().clone())
            x = y
    return None


def _repeats(x: torch.Tensor, y: torch.Tensor) -> bool:
    sizes = list(zip(y.shape[2:], x.shape[2:], strict=True))
    return y.shape != x.shape and all(after % before == 0 for after, before in sizes)
