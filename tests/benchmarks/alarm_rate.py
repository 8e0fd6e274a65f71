"""How well the threshold keeps its promise on stationary scores: ``python -m tests.benchmarks.alarm_rate``.

A million scores of a known distribution go through threshold, alert and guard, as the walk does it, from a
tail calibrated on a hundred thousand others; printed is the flagged share over the promised one. In the last two
streams scores that follow one another are alike.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from streamlstm.core.alert import EpisodeParameters, episode_parameters
from streamlstm.core.bundle import Alerting
from streamlstm.core.compiled import compiled_with_arrays
from streamlstm.core.guard import judge_score
from streamlstm.core.state import EPISODE_FLOATS, INTEGERS, TAILS
from streamlstm.core.threshold import TailParameters, tail_parameters
from streamlstm.training.calibrate import fit_tail

EVENTS, CALIBRATION = 1_000_000, 100_000
RATES = (1e-2, 1e-3, 1e-4)
SEED = 0
MEMORY = 0.9  # correlation of a score with the one before, before it is made log-normal


@compiled_with_arrays
def _flagged(scores: NDArray[np.float32], episode: EpisodeParameters, parameters: TailParameters) -> int:
    integers, floats = np.zeros(INTEGERS, np.int64), np.zeros(EPISODE_FLOATS, np.float32)
    tails = np.zeros(TAILS, np.float32)
    tails[0], tails[1] = parameters.start, parameters.scale
    count = 0
    for score in scores:
        probability, _, _ = judge_score(integers, tails, floats, score, episode, parameters)
        count += probability <= parameters.alarm_rate
    return count


def share_flagged(scores: NDArray[np.float64], parameters: TailParameters) -> float:
    """Return the share of a new key's scores that are flagged."""
    defaults = Alerting()
    episode = episode_parameters(
        float(parameters.alarm_rate), defaults.resolve_after_events, defaults.cooldown_events, defaults.hold_events
    )
    return float(_flagged(scores.astype(np.float32), episode, parameters)) / len(scores)


def streams(rng: np.random.Generator) -> dict[str, NDArray[np.float64]]:
    """Return positive scores of several shapes, the calibration part first."""
    n = EVENTS + CALIBRATION
    noise = rng.exponential(size=n + 99)
    autoregressive = lfilter([np.sqrt(1 - MEMORY**2)], [1.0, -MEMORY], rng.normal(size=n))
    return {
        "exponential": rng.exponential(size=n),
        "normal": np.abs(rng.normal(size=n)),
        "log-normal": rng.lognormal(size=n),
        "|Student t|, 3 degrees of freedom": np.abs(rng.standard_t(3, size=n)),
        "gamma of 4": rng.gamma(4.0, size=n),
        "log-normal, correlated .9": np.exp(autoregressive / 2),
        "moving average of 100": np.convolve(noise, np.full(100, 0.01), "valid"),
    }


def main() -> None:
    """Print the table."""
    print(f"{'scores':36}" + "".join(f"{rate:>8.0e}" for rate in RATES))
    for name, scores in streams(np.random.default_rng(SEED)).items():
        tail = fit_tail(scores[:CALIBRATION])
        shares = [share_flagged(scores[CALIBRATION:], tail_parameters(*tail, rate)) for rate in RATES]
        print(f"{name:36}" + "".join(f"{share / rate:8.2f}" for share, rate in zip(shares, RATES, strict=True)))


if __name__ == "__main__":
    main()
