"""The loss: how surprising the next values are under Student's t, with its gradient in closed form."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamlstm.core.arithmetic import copy, exp32, log32
from streamlstm.core.compiled import compiled
from streamlstm.core.forecast import SMALLEST_SCALE

_F = np.float32
_ONE, _SMALLEST = _F(1.0), _F(SMALLEST_SCALE)


def location_and_scale(head: Tensor, values: int) -> tuple[Tensor, Tensor]:
    """Return what a head's output (B, T, 2·L·D) says, (B, T, L, D) both: locations, and scales above their floor."""
    location, raw = _halves(head, values)
    return location, torch.nn.functional.softplus(raw) + SMALLEST_SCALE


class StudentSurprise(torch.autograd.Function):
    """The sum of −log p(value | location, scale, freedom) over the L events after each of T, where it counts.

    ``head`` (B, T, 2·L·D): locations and raw scales. ``freedom`` (D,). ``later`` (B, T + L − 1, D): the values of the
    events after the first. ``there`` (the same) and ``counted`` (B, T): 1.0 where a value, and what is said after an
    event, counts, else 0.0. With q = x² / ν, x = (value − location) / scale and ν the freedom a term is
    log scale + (ν + 1)/2 · log(1 + q) and a constant of ν. The terms, and what each counts, are returned beside their
    sum, (B, T, L, D) both, without gradient.

    The gradient is written out because autograd walks over every intermediate array again: a step took a third longer.
    On the CPU, in single precision, all is one compiled pass over numbers in the nearest caches; the same in torch's
    words is for all else.
    """

    @staticmethod
    def forward(
        ctx: Any, head: Tensor, freedom: Tensor, later: Tensor, there: Tensor, counted: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return sum, terms and what counts; the gradients are found on the way, while the numbers are at hand."""
        half = (freedom + 1) / 2
        constant = torch.lgamma(freedom / 2) - torch.lgamma(half) + (freedom * torch.pi).log() / 2
        slope = (torch.digamma(freedom / 2) - torch.digamma(half) + 1 / freedom) / 2  # of the constant
        of_value = torch.stack([1 / freedom, half, constant, slope])
        given = head.contiguous(), of_value, later.contiguous(), there.contiguous(), counted.contiguous()
        fused = head.device.type == "cpu" and head.dtype == torch.float32
        surprise, weight, of_head, of_freedom = (_fused if fused else _in_torch)(*given)
        ctx.save_for_backward(of_head, of_freedom)
        ctx.mark_non_differentiable(surprise, weight)
        return surprise.sum(), surprise, weight

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        """Return the gradients by head and freedom; the others have none."""
        of_head, of_freedom = ctx.saved_tensors
        return of_head * gradient, of_freedom * gradient, None, None, None


def _halves(head: Tensor, values: int) -> tuple[Tensor, ...]:
    return head.view(*head.shape[:2], 2, -1, values).unbind(2)


def _in_torch(head: Tensor, of_value: Tensor, later: Tensor, there: Tensor, counted: Tensor) -> tuple[Tensor, ...]:
    inverse, half, constant, slope = of_value
    location, scale = location_and_scale(head, later.shape[2])
    ahead = location.shape[2]
    target, weight = (one.unfold(1, ahead, 1).transpose(2, 3) for one in (later, there))
    weight = weight * counted[:, :, None, None]
    nearness = 1 / scale
    off = (target - location) * nearness
    q = off * off * inverse
    tail, within = q.log1p(), 1 / (1 + q)
    pull = off * within * (2 * half * inverse)  # d surprise / d off
    of_scale = (1 - off * pull) * nearness * torch.sigmoid(_halves(head, later.shape[2])[1])
    of_halves = torch.stack([-pull * nearness, of_scale], dim=2) * weight.unsqueeze(2)
    of_freedom = (tail / 2 - q * within * (half * inverse) + slope) * weight
    surprise = (scale.log() + constant + half * tail) * weight
    return surprise, weight, of_halves.view(head.shape), of_freedom.sum(dim=(0, 1, 2))


def _fused(head: Tensor, of_value: Tensor, later: Tensor, there: Tensor, counted: Tensor) -> tuple[Tensor, ...]:
    lanes, length, values = *head.shape[:2], later.shape[2]
    ahead = head.shape[2] // 2 // values
    surprise, weight = (torch.empty(lanes, length, ahead, values) for _ in range(2))
    of_head, of_freedom = torch.empty_like(head), torch.zeros(lanes, ahead * values)
    scratch = np.empty((8, length * ahead * values), np.float32)
    scratch[:4] = of_value.detach().repeat(1, length * ahead).numpy()
    tensors = head, later, there, counted, surprise, weight, of_head, of_freedom
    _write_all(scratch, *(one.detach().numpy() for one in tensors))
    return surprise, weight, of_head, of_freedom.view(-1, values).sum(dim=0)


@compiled
def _write_all(
    scratch: NDArray[np.float32],
    head: NDArray[np.float32],
    later: NDArray[np.float32],
    there: NDArray[np.float32],
    counted: NDArray[np.float32],
    surprise: NDArray[np.float32],
    weight: NDArray[np.float32],
    of_head: NDArray[np.float32],
    of_freedom: NDArray[np.float32],
) -> None:
    """Write terms, weights and gradients, lane by lane; the L · D values after event t lie one behind the other."""
    values, width = later.shape[2], of_freedom.shape[1]
    location, raw, target, by_freedom = scratch[4], scratch[5], scratch[6], scratch[7]
    for lane in range(head.shape[0]):
        all_later, all_there, of_lane = later[lane].reshape(-1), there[lane].reshape(-1), weight[lane].reshape(-1)
        for t in range(head.shape[1]):
            at, own, is_there = t * width, of_lane[t * width :], all_there[t * values :]
            copy(location[at:], head[lane, t, :width])
            copy(raw[at:], head[lane, t, width:])
            copy(target[at:], all_later[t * values : t * values + width])
            for j in range(width):
                own[j] = is_there[j] * counted[lane, t]
        _write(location, raw, by_freedom, target, of_lane, surprise[lane].reshape(-1), scratch[:4])
        for t in range(head.shape[1]):
            at, sums, terms = t * width, of_freedom[lane], by_freedom[t * width :]
            copy(of_head[lane, t], location[at : at + width])
            copy(of_head[lane, t, width:], raw[at : at + width])
            for j in range(width):
                sums[j] += terms[j]


@compiled
def _write(
    location: NDArray[np.float32],
    raw: NDArray[np.float32],
    by_freedom: NDArray[np.float32],
    target: NDArray[np.float32],
    weight: NDArray[np.float32],
    surprise: NDArray[np.float32],
    of_value: NDArray[np.float32],
) -> None:
    """Write one lane's terms; ``location`` and ``raw`` become the gradients by them. All are (T · L · D,)."""
    inverse, half, constant, slope = of_value[0], of_value[1], of_value[2], of_value[3]
    for j in range(surprise.shape[0]):
        small = exp32(-abs(raw[j]))
        scale = max(raw[j], _F(0.0)) + log32(_ONE + small) + _SMALLEST
        opened = (_ONE if raw[j] > _F(0.0) else small) / (_ONE + small)  # d scale / d raw: the sigmoid
        nearness = _ONE / scale
        off = (target[j] - location[j]) * nearness
        q = off * off * inverse[j]
        tail, within = log32(_ONE + q), half[j] * inverse[j] / (_ONE + q)
        pull = _F(2.0) * off * within  # d surprise / d off
        surprise[j] = (log32(scale) + constant[j] + half[j] * tail) * weight[j]
        location[j] = -pull * nearness * weight[j]
        raw[j] = (_ONE - off * pull) * nearness * opened * weight[j]
        by_freedom[j] = (_F(0.5) * tail - q * within + slope[j]) * weight[j]
