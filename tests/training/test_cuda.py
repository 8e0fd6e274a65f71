"""Training on a GPU, where there is one: the same loss, and a bundle for the same scorer."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import torch

from streamlstm.core.scorer import Scorer
from streamlstm.training.train import Options, train
from tests.builders import SCHEMA, make_feed, make_history

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can use on this machine")
ON_GPU = Options(hidden=16, horizon=2, updates=30, lanes=4, device="cuda")


def test_losses_on_a_gpu_are_those_of_the_cpu() -> None:
    """The same lanes and first weights; sums are in another order, so equal to three digits while they are young."""
    history = make_history(make_feed(400))
    gpu, cpu = (train(history, SCHEMA, msgspec.structs.replace(ON_GPU, device=device)) for device in ("cuda", "cpu"))
    assert np.allclose(gpu.curve.loss[:5], cpu.curve.loss[:5], rtol=1e-3)
    assert np.isclose(min(gpu.curve.held_out), min(cpu.curve.held_out), rtol=0.05)


def test_bundle_trained_on_a_gpu_scores_on_the_cpu() -> None:
    """Its arrays are numpy's, and its scores finite after the warm-up."""
    feed = make_feed(400)
    scorer = Scorer(train(make_history(feed), SCHEMA, ON_GPU).bundle)
    outcome = scorer.score(scorer.read(feed), {})
    assert np.isfinite(outcome.results.score[-100:]).all()


def test_sizes_are_chosen_on_a_gpu_too() -> None:
    """Trials run where training runs."""
    options = msgspec.structs.replace(ON_GPU, hidden=None, horizon=None, updates=100)
    choices = train(make_history(make_feed(300)), SCHEMA, options).bundle.report["choices"]
    assert isinstance(choices, list)
    assert len(choices) == 2
