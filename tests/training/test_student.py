"""The loss is Student's t, and its gradient is the one it claims, compiled or in torch's words."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor
from torch.distributions import StudentT

from streamlstm.training.student import StudentSurprise, location_and_scale, surprises

LANES, LENGTH, HORIZON, VALUES = 5, 7, 3, 2


def arguments(seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return a head's output, degrees of freedom, later values, which are there, and what is counted."""
    torch.manual_seed(seed)
    head = 2 * torch.randn(2, HORIZON, VALUES, LENGTH, LANES, dtype=torch.float64)
    later = torch.randn(VALUES, LENGTH + HORIZON - 1, LANES, dtype=torch.float64)
    there, counted = torch.rand(later.shape) < 0.7, torch.rand(LENGTH, LANES) < 0.8
    given = head, torch.tensor([2.1, 30.0]), later, there, counted
    return tuple(one.to(dtype) for one in given)  # type: ignore[return-value]


def surprise_of(*given: Tensor) -> tuple[Tensor, Tensor]:
    """Return sum and count."""
    found: tuple[Tensor, Tensor] = StudentSurprise.apply(*given)  # type: ignore[no-untyped-call]
    return found


@pytest.mark.parametrize(("dtype", "exact"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_surprise_is_the_negative_log_likelihood_of_students_t_where_it_counts(
    dtype: torch.dtype, exact: float
) -> None:
    """Equal to torch's own distribution at each of the events after each, and zero elsewhere."""
    head, freedom, later, there, counted = arguments(dtype=dtype)
    location, scale = location_and_scale(head)
    total, count = surprise_of(head, freedom, later, there, counted)
    surprise, weight = surprises(head, freedom, later, there, counted)
    assert surprise.shape == weight.shape == location.shape == (HORIZON, VALUES, LENGTH, LANES)
    for t, ahead in product(range(LENGTH), range(HORIZON)):
        now = ahead, slice(None), t
        target, is_there = later[:, t + ahead], there[:, t + ahead]
        assert torch.equal(weight[now], is_there * counted[t])
        likelihood = StudentT(freedom[:, None], location[now], scale[now]).log_prob(target)  # type: ignore[no-untyped-call]
        assert torch.allclose(surprise[now], -likelihood * weight[now], rtol=exact, atol=exact)
    assert (surprise[weight == 0] == 0).all()
    assert 0 < int((weight == 0).sum()) < weight.numel()
    assert float(total) == pytest.approx(float(surprise.sum()), rel=1e-6)
    assert float(count) == float(weight.sum())


def test_gradient_of_surprise_is_that_of_finite_differences() -> None:
    """By locations, raw scales and degrees of freedom."""
    head, freedom, *others = arguments()
    for one in (head, freedom):
        one.requires_grad_()
    assert torch.autograd.gradcheck(lambda *given: surprise_of(*given, *others)[0], (head, freedom))


@pytest.mark.parametrize("spread", [0.1, 1.0, 30.0])
def test_compiled_gradient_is_that_in_torchs_words(spread: float) -> None:
    """In single precision to five digits of the largest, near values and far ones, certain heads and vague ones."""
    gradients = []
    for dtype in (torch.float64, torch.float32):
        head, freedom, later, there, counted = arguments(1, dtype)
        head, later = (head * spread).requires_grad_(), later * spread
        freedom.requires_grad_()
        (3 * surprise_of(head, freedom, later, there, counted)[0]).backward()  # type: ignore[no-untyped-call]
        assert head.grad is not None
        assert freedom.grad is not None
        gradients.append((head.grad.double(), freedom.grad.double()))
    for exact, found in zip(*gradients, strict=True):
        assert float((exact - found).abs().max()) < 1e-5 * float(exact.abs().max())


@pytest.mark.parametrize("far", [1e3, 1e6])
def test_gradient_of_a_far_value_stays_small(far: float) -> None:
    """Heavy tails: what lies far off pulls no harder than what lies near; nothing overflows in single precision."""
    head, freedom, later, there, counted = arguments(dtype=torch.float32)
    head.requires_grad_()
    surprise_of(head, freedom, later + far, there, counted)[0].backward()  # type: ignore[no-untyped-call]
    assert head.grad is not None
    assert head.grad.isfinite().all()
    assert head.grad[0].abs().max() < 1.0
