"""The arithmetic of AWQ (Lin et al., 2023, https://arxiv.org/abs/2306.00978), and of plain rounding. Needs torch.

A layer answers ``W x``. Its weights are cut into groups of inputs; each group of each output has a scale and a zero
point. AWQ multiplies inputs that are large on average before rounding, and divides what feeds them by the same: the
model says the same, and the weights that matter lose less. Then it narrows the range of a group where that makes the
error smaller. Both errors are those of the layer's answers on the calibration inputs ``X`` (rows are tokens): with
``D = W - W'``, it is ``tr(D XᵀX Dᵀ)``, so that only the square ``XᵀX`` has to be kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

Tensor = Any
"""A ``torch.Tensor``: torch is an extra, and its types are not there where the code is checked."""
STEPS: Final = 20
"""Exponents that are tried for the scales, from 0 (none) upwards, below 1."""
SHRINKS: Final = 11
"""Widths that are tried for a range, from the whole to half of it."""
_SMALL: Final = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantised:
    """Weights of a layer in whole numbers.

    Attributes:
        values: int8, outputs by inputs, each from 0 to ``2**bits - 1``.
        scales: outputs by groups, in the type they are stored in.
        zeros: int8, outputs by groups, in the range of the values.
    """

    values: Tensor
    scales: Tensor
    zeros: Tensor

    def weights(self) -> Tensor:
        """What the engine calculates with: ``(value - zero) * scale``, in single precision."""
        outputs, groups = self.scales.shape
        parts = self.values.view(outputs, groups, -1).float() - self.zeros.float().unsqueeze(-1)
        return (parts * self.scales.float().unsqueeze(-1)).view(outputs, -1)


@dataclass(slots=True, kw_only=True)
class Inputs:
    """What came into a layer on the calibration texts, summed up.

    Attributes:
        square: ``XᵀX``, inputs by inputs.
        total: sum of ``|x|`` for each input.
        tokens: how many rows.
    """

    square: Tensor
    total: Tensor
    tokens: int = 0

    @classmethod
    def of(cls, width: int) -> Inputs:
        """Nothing yet."""
        return cls(square=torch.zeros(width, width), total=torch.zeros(width))

    def add(self, states: Tensor) -> None:
        """Take in some more; the last side is that of the inputs."""
        rows = states.reshape(-1, states.shape[-1]).float()
        self.square.addmm_(rows.t(), rows)
        self.total += rows.abs().sum(0)
        self.tokens += rows.shape[0]

    def divided(self, scales: Tensor) -> Inputs:
        """What comes in after the layer before was divided by ``scales``."""
        square = self.square / scales.unsqueeze(0) / scales.unsqueeze(1)
        return Inputs(square=square, total=self.total / scales, tokens=self.tokens)


def quantise(weights: Tensor, *, bits: int, group_size: int, dtype: Any, keep: Tensor | None = None) -> Quantised:
    """Round to the nearest step of each group.

    Args:
        weights: single precision, outputs by inputs.
        bits: of a value.
        group_size: divides the inputs.
        dtype: type of the scales; they are rounded to it before values are.
        keep: outputs by groups: the part of the range that is kept; None keeps all.
    """
    top = 2**bits - 1
    outputs, inputs = weights.shape
    groups = weights.view(outputs, inputs // group_size, group_size)
    low, high = groups.amin(-1).clamp(max=0), groups.amax(-1).clamp(min=0)
    if keep is not None:
        low, high = low * keep, high * keep
    scales = ((high - low) / top).clamp(min=_SMALL).to(dtype)
    step = scales.float()
    zeros = (-low / step).round().clamp(0, top)
    values = ((groups / step.unsqueeze(-1)).round() + zeros.unsqueeze(-1)).clamp(0, top)
    return Quantised(values=values.to(torch.int8).view(outputs, inputs), scales=scales, zeros=zeros.to(torch.int8))


def error(difference: Tensor, square: Tensor) -> float:
    """Squared error of the answers, summed over tokens and outputs."""
    return float(((difference @ square) * difference).sum())


def find_scales(layers: Sequence[Tensor], inputs: Inputs, *, bits: int, group_size: int, dtype: Any) -> Tensor:
    """Scales of the inputs that layers share: the best of ``mean(|x|) ** (k / STEPS)``; ones where none is better."""
    mean = (inputs.total / max(inputs.tokens, 1)).clamp(min=1e-4)
    best, least = torch.ones_like(mean), float("inf")
    for step in range(STEPS):
        tried = mean ** (step / STEPS)
        tried = tried / (tried.max() * tried.min()).sqrt()
        lost = 0.0
        for weights in layers:
            rounded = quantise(weights * tried, bits=bits, group_size=group_size, dtype=dtype).weights() / tried
            lost += error(weights - rounded, inputs.square)
        if lost < least:
            best, least = tried, lost
    return best


def find_ranges(weights: Tensor, inputs: Inputs, *, bits: int, group_size: int, dtype: Any) -> Tensor:
    """Part of each group's range that is kept, from a half to 1, outputs by groups: the one of the least error.

    The error is that of the group alone, as if the others were exact.
    """
    outputs, width = weights.shape
    groups = width // group_size
    squares = torch.stack([inputs.square[s : s + group_size, s : s + group_size] for s in range(0, width, group_size)])
    best = torch.ones(outputs, groups)
    least = torch.full((outputs, groups), float("inf"))
    for step in range(SHRINKS):
        keep = torch.full((outputs, groups), 1 - 0.5 * step / (SHRINKS - 1))
        rounded = quantise(weights, bits=bits, group_size=group_size, dtype=dtype, keep=keep).weights()
        parts = (weights - rounded).view(outputs, groups, group_size)
        lost = (torch.einsum("ogk,gkl->ogl", parts, squares) * parts).sum(-1)
        better = lost < least
        best, least = torch.where(better, keep, best), torch.where(better, lost, least)
    return best
