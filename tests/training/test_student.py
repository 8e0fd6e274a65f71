"""The loss is Student's t, and its gradient is the one it claims."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributions import StudentT

from streamlstm.training.student import StudentSurprise

SHAPE = (5, 7, 3, 2)


def arguments(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return locations, scales, degrees of freedom, targets and weights in double precision."""
    torch.manual_seed(seed)
    location, target = (torch.randn(SHAPE, dtype=torch.float64) for _ in range(2))
    scale, weight = torch.rand(SHAPE, dtype=torch.float64) + 0.05, (torch.rand(SHAPE) < 0.7).double()
    return location, scale, torch.tensor([2.1, 30.0], dtype=torch.float64), target, weight


def test_surprise_is_the_negative_log_likelihood_of_students_t_where_it_counts() -> None:
    """Equal to torch's own distribution, and zero elsewhere."""
    location, scale, freedom, target, weight = arguments()
    expected = -StudentT(freedom, location, scale).log_prob(target) * weight
    found = StudentSurprise.apply(location, scale, freedom, target, weight)  # type: ignore[no-untyped-call]
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12)
    assert (found[weight == 0] == 0).all()


def test_gradient_of_surprise_is_that_of_finite_differences() -> None:
    """By location, scale and degrees of freedom."""
    location, scale, freedom, target, weight = arguments()
    for one in (location, scale, freedom):
        one.requires_grad_()
    apply = StudentSurprise.apply
    assert torch.autograd.gradcheck(lambda *given: apply(*given, target, weight), (location, scale, freedom))


@pytest.mark.parametrize("far", [1e3, 1e6])
def test_gradient_of_a_far_value_stays_small(far: float) -> None:
    """Heavy tails: what lies far off pulls no harder than what lies near; nothing overflows in single precision."""
    location, scale, freedom, target, weight = (one.float() for one in arguments())
    location.requires_grad_()
    StudentSurprise.apply(location, scale, freedom, target + far, weight).sum().backward()  # type: ignore[no-untyped-call]
    assert location.grad is not None
    assert location.grad.isfinite().all()
    assert location.grad.abs().max() < 1.0
