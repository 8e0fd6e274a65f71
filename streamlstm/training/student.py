"""The loss: how surprising a value is under Student's t, with its gradient in closed form."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class StudentSurprise(torch.autograd.Function):
    """−log p(target | location, scale, freedom) × weight, elementwise.

    ``location``, ``scale``, ``target`` and ``weight`` (…, D), ``freedom`` (D,); the result is (…, D). With q = x² / ν,
    x = (target − location) / scale and ν the freedom it is log scale + (ν + 1)/2 · log(1 + q) and a constant of ν.

    The gradient is written out because autograd walks over every intermediate array again: a training step took a
    third longer. ``torch.distributions.StudentT`` evaluates lgamma of ν for every element besides; here once per value.
    """

    @staticmethod
    def forward(ctx: Any, location: Tensor, scale: Tensor, freedom: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Return the surprise; the gradients are found on the way, while the arrays are in the cache."""
        nearness = scale.reciprocal()
        off = (target - location).mul_(nearness)
        q = (off * off).div_(freedom)
        tail = q.log1p()
        half = (freedom + 1) / 2
        constant = torch.lgamma(freedom / 2) - torch.lgamma(half) + (freedom * torch.pi).log() / 2
        surprise = scale.log().add_(constant).addcmul_(tail, half.expand_as(tail)).mul_(weight)
        if any(ctx.needs_input_grad):
            within = (q + 1).reciprocal_()
            pull = (off * within).mul_(2 * half / freedom)  # d surprise / d off
            nearness.mul_(weight)
            of_scale = off.mul_(pull).neg_().add_(1).mul_(nearness)
            of_location = pull.mul_(nearness).neg_()
            constant = (torch.digamma(freedom / 2) - torch.digamma(half) + 1 / freedom) / 2
            of_freedom = tail.div_(2).sub_(q.mul_(within).mul_(half / freedom)).add_(constant).mul_(weight)
            ctx.save_for_backward(of_location, of_scale, of_freedom)
        return surprise

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        """Return the gradients by location, scale and freedom; target and weight have none."""
        of_location, of_scale, of_freedom = (gradient * own for own in ctx.saved_tensors)
        return of_location, of_scale, of_freedom.flatten(0, -2).sum(dim=0), None, None
