"""Local response normalisation with the channels in the last dimension, and its derivative."""

from __future__ import annotations

import torch

Settings = tuple[int, float, float, float]
"""size, alpha, beta, k as in torch.nn.LocalResponseNorm."""


def channel_norm(x: torch.Tensor, settings: Settings) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    """Return y = x s^-beta with s = k + alpha / size * (sum of x^2 over neighbouring channels), and (s, s^-beta).

    x: (..., C). The sum over neighbours is a product with a band matrix, several times faster than a pooling over
    channels.
    """
    size, alpha, beta, k = settings
    around = (x * x) @ _band(x, size)
    scale = around.mul_(alpha / size).add_(k)
    root = scale.rsqrt()
    power = root.mul_(root.sqrt()) if beta == 0.75 else scale.pow(-beta)
    return x * power, (scale, power)


def channel_norm_backward(
    dy: torch.Tensor, x: torch.Tensor, kept: tuple[torch.Tensor, torch.Tensor], settings: Settings
) -> torch.Tensor:
    """Return the gradient with respect to x."""
    size, alpha, beta, _ = settings
    scale, power = kept
    direct = dy * power
    through = (direct * x).div_(scale) @ _band(x, size).T
    return direct.addcmul_(x, through, value=-2 * alpha * beta / size)


def _band(x: torch.Tensor, size: int) -> torch.Tensor:
    """Return (C, C): one where channel j counts among the neighbours of channel c."""
    channels = torch.arange(x.shape[-1], device=x.device)
    distance = channels[:, None] - channels[None, :]
    return ((distance >= -(size // 2)) & (distance <= (size - 1) // 2)).to(x.dtype)
