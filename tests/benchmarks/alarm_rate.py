"""How well the threshold keeps its promise on stationary scores: ``python -m tests.benchmarks.alarm_rate``.

A million scores of a known distribution go through threshold, alert and guard, as the walk does it, from a
tail calibrated on a hundred thousand others; printed is the flagged share over the promised one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamlstm.core.alert import EpisodeParameters, advance_episode
from streamlstm.core.bundle import Alerting
from streamlstm.core.compiled import compiled
from streamlstm.core.guard import learn_guarded
from streamlstm.core.state import EPISODE_FLOATS, INTEGERS, TAIL_FLOATS
from streamlstm.core.threshold import TAIL_PROBABILITY, TailParameters, tail_parameters, tail_probability

EVENTS, CALIBRATION = 1_000_000, 100_000
RATES = (1e-2, 1e-3, 1e-4)
SEED = 0


@compiled
def flagged(scores: NDArray[np.float32], episode: EpisodeParameters, parameters: TailParameters) -> int:
    """Return how many scores are flagged."""
    integers, floats = np.zeros(INTEGERS, np.int64), np.zeros(EPISODE_FLOATS, np.float32)
    tails = np.zeros(2 * TAIL_FLOATS, np.float32)
    tails[0], tails[1] = parameters.start, parameters.scale
    count = 0
    for score in scores:
        probability = tail_probability(score, tails)
        action = advance_episode(integers, floats, score, probability, episode)
        learn_guarded(integers, tails, score, probability, action, episode, parameters)
        count += probability <= parameters.alarm_rate
    return count


def streams(rng: np.random.Generator) -> dict[str, NDArray[np.float64]]:
    """Return positive scores of several shapes, the calibration part first."""
    n = EVENTS + CALIBRATION
    noise = rng.exponential(size=n + 99)
    return {
        "exponential": rng.exponential(size=n),
        "normal": np.abs(rng.normal(size=n)),
        "log-normal": rng.lognormal(size=n),
        "|Student t|, 3 degrees of freedom": np.abs(rng.standard_t(3, size=n)),
        "moving average of 100": np.convolve(noise, np.full(100, 0.01), "valid"),
    }


def main() -> None:
    """Print the table."""
    defaults = Alerting()
    print(f"{'scores':36}" + "".join(f"{rate:>8.0e}" for rate in RATES))
    for name, scores in streams(np.random.default_rng(SEED)).items():
        start = float(np.quantile(scores[:CALIBRATION], 1 - TAIL_PROBABILITY))
        scale = float((scores[:CALIBRATION][scores[:CALIBRATION] > start] - start).mean())
        live = scores[CALIBRATION:].astype(np.float32)
        ratios = []
        for rate in RATES:
            episode = EpisodeParameters(
                np.float32(rate), defaults.resolve_after_events, defaults.cooldown_events, defaults.hold_events
            )
            ratios.append(flagged(live, episode, tail_parameters(start, scale, rate)) / (rate * EVENTS))
        print(f"{name:36}" + "".join(f"{ratio:8.1f}" for ratio in ratios))


if __name__ == "__main__":
    main()
