"""The loss: how surprising the next values are under Student's t, with its gradient in closed form."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import digamma, gammaln
from torch import Tensor

from streamlstm.core.arithmetic import exp32, log32
from streamlstm.core.compiled import compiled
from streamlstm.core.forecast import SMALLEST_SCALE

_F = np.float32
_ONE, _SMALLEST = _F(1.0), _F(SMALLEST_SCALE)
_BLOCK = 256  # numbers at a time: long enough for the machine's vectors, their sums in its nearest cache


def location_and_scale(head: Tensor) -> tuple[Tensor, Tensor]:
    """Return what a head's output (2, L, D, T, B) says, (L, D, T, B) both: locations, and scales above their floor."""
    location, raw = head.unbind(0)
    return location, torch.nn.functional.softplus(raw) + SMALLEST_SCALE


class StudentSurprise(torch.autograd.Function):
    """The sum of −log p(value | location, scale, freedom) over the L events after each of T, where it counts.

    ``head`` (2, L, D, T, B): locations and raw scales. ``freedom`` (D,). ``later`` (D, T + L − 1, B): the values of the
    events after the first. ``there`` (the same) and ``counted`` (T, B): 1.0 where a value, and what is said after an
    event, counts, else 0.0. With q = x² / ν, x = (value − location) / scale and ν the freedom a term is
    log scale + (ν + 1)/2 · log(1 + q) and a constant of ν. How many terms count is returned beside their sum.

    The gradient is written out because autograd walks over every intermediate array again: a step took a third longer.
    On the CPU, in single precision, all is one compiled pass over numbers in the nearest caches, for which time and
    lanes come last: all terms of one value, so far ahead, lie one behind the other, and so do what they are held
    against. The same in torch's words is for all else.
    """

    @staticmethod
    def forward(
        ctx: Any, head: Tensor, freedom: Tensor, later: Tensor, there: Tensor, counted: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return sum and count; the gradients are found on the way, while the numbers are at hand."""
        fused = head.device.type == "cpu" and head.dtype == torch.float32
        total, count, of_head, of_freedom = (_fused if fused else _in_torch)(head, freedom, later, there, counted)
        ctx.save_for_backward(of_head, of_freedom)
        ctx.mark_non_differentiable(count)
        return total, count

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        """Return the gradients by head and freedom; the others have none."""
        of_head, of_freedom = ctx.saved_tensors
        return of_head * gradient, of_freedom * gradient, None, None, None


def surprises(head: Tensor, freedom: Tensor, later: Tensor, there: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """Return the terms that :class:`StudentSurprise` sums, zero where they do not count, and 1.0 or 0.0 for whether
    they do, (L, D, T, B) both."""
    surprise, weight, *_ = _terms(head, freedom, later, there, counted)
    return surprise, weight


def _of_value(freedom: Tensor) -> NDArray[np.float64]:
    """Return what depends on the freedom alone, (4, D): 1 / ν, (ν + 1) / 2, the constant, and its slope by ν."""
    v = freedom.detach().double().cpu().numpy()
    half = (v + 1) / 2
    constant = gammaln(v / 2) - gammaln(half) + np.log(v * np.pi) / 2
    return np.array([1 / v, half, constant, (digamma(v / 2) - digamma(half) + 1 / v) / 2])


def _in_torch(*given: Tensor) -> tuple[Tensor, ...]:
    surprise, weight, of_head, of_freedom = _terms(*given)
    return surprise.sum(), weight.sum(), of_head, of_freedom


def _terms(head: Tensor, freedom: Tensor, later: Tensor, there: Tensor, counted: Tensor) -> tuple[Tensor, ...]:
    """Return the terms, what each counts, and the gradients of their sum by head and freedom."""
    inverse, half, constant, slope = torch.from_numpy(_of_value(freedom)).to(head)[..., None, None]
    location, scale = location_and_scale(head)
    target, weight = (one.unfold(1, head.shape[3], 1).permute(1, 0, 3, 2) for one in (later, there))
    weight = weight * counted
    nearness = 1 / scale
    off = (target - location) * nearness
    q = off * off * inverse
    tail, within = q.log1p(), 1 / (1 + q)
    pull = off * within * (2 * half * inverse)  # d surprise / d off
    of_scale = (1 - off * pull) * nearness * torch.sigmoid(head[1])
    of_head = torch.stack([-pull * nearness, of_scale]) * weight
    of_freedom = (tail / 2 - q * within * (half * inverse) + slope) * weight
    surprise = (scale.log() + constant + half * tail) * weight
    return surprise, weight, of_head, of_freedom.sum(dim=(0, 2, 3))


def _fused(head: Tensor, freedom: Tensor, later: Tensor, there: Tensor, counted: Tensor) -> tuple[Tensor, ...]:
    _, ahead, values, *_ = head.shape
    of_head, sums = torch.empty(head.shape), torch.empty(ahead, values, 3)
    tensors = head.contiguous(), later.contiguous(), there.contiguous(), counted.contiguous(), of_head, sums
    scratch = np.empty((3, _BLOCK), np.float32)
    _write_all(_of_value(freedom).astype(np.float32), scratch, *(one.detach().numpy() for one in tensors))
    total, count, _ = sums.sum(dim=(0, 1))
    return total, count, of_head, sums[..., 2].sum(dim=0)


@compiled
def _write_all(
    of_value: NDArray[np.float32],
    scratch: NDArray[np.float32],
    head: NDArray[np.float32],
    later: NDArray[np.float32],
    there: NDArray[np.float32],
    counted: NDArray[np.float32],
    of_head: NDArray[np.float32],
    sums: NDArray[np.float32],
) -> None:
    """Write gradients, and for each value, so far ahead, (L, D, 3) sums: of terms, of what counts, and by freedom."""
    all_counted = counted.reshape(-1)
    for ahead in range(head.shape[1]):
        for value in range(head.shape[2]):
            for part in range(3):
                for i in range(scratch.shape[1]):
                    scratch[part, i] = _F(0.0)
            location, raw = head[0, ahead, value].reshape(-1), head[1, ahead, value].reshape(-1)
            target, is_there = later[value, ahead:].reshape(-1), there[value, ahead:].reshape(-1)
            of_location, of_raw = of_head[0, ahead, value].reshape(-1), of_head[1, ahead, value].reshape(-1)
            for start in range(0, raw.shape[0], scratch.shape[1]):
                _write(
                    location[start:],
                    raw[start : start + scratch.shape[1]],
                    target[start:],
                    is_there[start:],
                    all_counted[start:],
                    of_value[:, value],
                    scratch,
                    of_location[start:],
                    of_raw[start:],
                )
            for part in range(3):
                total = _F(0.0)
                for i in range(scratch.shape[1]):
                    total += scratch[part, i]
                sums[ahead, value, part] = total


@compiled
def _write(
    location: NDArray[np.float32],
    raw: NDArray[np.float32],
    target: NDArray[np.float32],
    there: NDArray[np.float32],
    counted: NDArray[np.float32],
    of_value: NDArray[np.float32],
    scratch: NDArray[np.float32],
    of_location: NDArray[np.float32],
    of_raw: NDArray[np.float32],
) -> None:
    """Write the gradients of a block's terms, and add to the sums, place by place."""
    inverse, half, constant, slope = of_value[0], of_value[1], of_value[2], of_value[3]
    terms, counts, by_freedom = scratch[0], scratch[1], scratch[2]
    for i in range(raw.shape[0]):
        weight = there[i] * counted[i]
        small = exp32(-abs(raw[i]))
        scale = max(raw[i], _F(0.0)) + log32(_ONE + small) + _SMALLEST
        opened = (_ONE if raw[i] > _F(0.0) else small) / (_ONE + small)  # d scale / d raw: the sigmoid
        nearness = _ONE / scale
        off = (target[i] - location[i]) * nearness
        q = off * off * inverse
        tail, within = log32(_ONE + q), half * inverse / (_ONE + q)
        pull = _F(2.0) * off * within  # d surprise / d off
        of_location[i] = -pull * nearness * weight
        of_raw[i] = (_ONE - off * pull) * nearness * opened * weight
        terms[i] += (log32(scale) + constant + half * tail) * weight
        counts[i] += weight
        by_freedom[i] += (_F(0.5) * tail - q * within + slope) * weight
