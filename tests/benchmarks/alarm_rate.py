"""How well the promise is kept where nothing is wrong: ``python -m tests.benchmarks.alarm_rate``.

First threshold, alert and guard alone: a million values of a known distribution become decades, as a channel's do,
all calibrated on a hundred thousand others. Then the whole detector, trained on 8,000 events of made-up streams of
two values and judged on 100,000 more. Printed is the share of events flagged, and of those that opened an alert, both
over the promised share.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.signal import lfilter

from streamlstm.core.alert import OPENED, EpisodeParameters, episode_parameters
from streamlstm.core.bundle import Alerting
from streamlstm.core.compiled import compiled_with_arrays
from streamlstm.core.guard import judge_score
from streamlstm.core.schema import StreamSchema
from streamlstm.core.state import EPISODE_FLOATS, INTEGERS, TAILS
from streamlstm.core.threshold import TailParameters, tail_parameters
from streamlstm.evaluation.judge import judge
from streamlstm.evaluation.surprise import surprise_curve
from streamlstm.evaluation.task import Task, events_of, regular_times
from streamlstm.training.calibrate import fit_tail
from streamlstm.training.train import Options

EVENTS, CALIBRATION = 1_000_000, 100_000
RATES = (1e-2, 1e-3, 1e-4)
SEED = 0
MEMORY = 0.9  # correlation of a value with the one before, before it is made log-normal
HISTORY, LIVE = 8_000, 100_000  # events of a whole stream
STEP_MS, DAY = 300_000, 288
SCHEMA = StreamSchema.from_toml('timestamp_unit = "ms"\n[features.a]\n[features.b]\n')


@compiled_with_arrays
def _walk(scores: NDArray[np.float32], episode: EpisodeParameters, parameters: TailParameters) -> tuple[int, int]:
    integers, floats = np.zeros(INTEGERS, np.int64), np.zeros(EPISODE_FLOATS, np.float32)
    tails = np.zeros(TAILS, np.float32)
    tails[0], tails[1] = parameters.start, parameters.scale
    flagged, opened = 0, 0
    for score in scores:
        probability, _, action = judge_score(integers, tails, floats, score, episode, parameters)
        flagged += probability <= parameters.alarm_rate
        opened += action == OPENED
    return flagged, opened


def shares(scores: NDArray[np.float64], parameters: TailParameters) -> tuple[float, float]:
    """Return the shares of a new key's scores that are flagged, and that open an alert."""
    defaults = Alerting()
    episode = episode_parameters(
        float(parameters.alarm_rate), defaults.resolve_after_events, defaults.cooldown_events, defaults.hold_events
    )
    flagged, opened = _walk(scores.astype(np.float32), episode, parameters)
    return flagged / len(scores), opened / len(scores)


def distributions(rng: np.random.Generator) -> dict[str, NDArray[np.float64]]:
    """Return positive values of several shapes, the calibration part first."""
    n = EVENTS + CALIBRATION
    noise = rng.exponential(size=n + 99)
    autoregressive = lfilter([np.sqrt(1 - MEMORY**2)], [1.0, -MEMORY], rng.normal(size=n))
    return {
        "exponential": rng.exponential(size=n),
        "normal": np.abs(rng.normal(size=n)),
        "log-normal": rng.lognormal(size=n),
        "|Student t|, 3 degrees of freedom": np.abs(rng.standard_t(3, size=n)),
        "log-normal, correlated .9": np.exp(autoregressive / 2),
        "moving average of 100": np.convolve(noise, np.full(100, 0.01), "valid"),
    }


def streams(rng: np.random.Generator) -> dict[str, NDArray[np.float64]]:
    """Return streams of two values, (n, 2), the history first."""
    shape = (HISTORY + LIVE, 2)
    day = np.sin(2 * np.pi * np.arange(shape[0]) / DAY)[:, None]
    unrest = lfilter([0.05], [1, -0.99], rng.normal(size=shape), axis=0)
    return {
        "autoregressive, normal": lfilter([1], [1, -0.7], rng.normal(size=shape), axis=0),
        "autoregressive, Student t of 3": lfilter([1], [1, -0.7], rng.standard_t(3, size=shape), axis=0),
        "log-normal": rng.lognormal(size=shape),
        "daily, noise by the hour": 3 * day + rng.normal(size=shape) * (1 + 0.5 * day),
        "normal, of a spread that wanders": rng.normal(size=shape) * np.exp(unrest),
    }


def judged(name: str, values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the shares of a stream's live events that are flagged, and that open an alert, over the promised one."""
    table = pd.DataFrame({"time": regular_times(len(values), STEP_MS), "a": values[:, 0], "b": values[:, 1]})
    history, live = events_of(table[:HISTORY], SCHEMA), events_of(table[HISTORY:], SCHEMA)
    result = judge(
        Task(name, SCHEMA, history, live, np.zeros(LIVE, dtype=bool)), Options(seed=SEED), baselines=()
    ).result
    found = result.detectors[0].overall
    assert found.realised is not None
    return found.realised / result.promised, found.alerts / found.events / result.promised


def main() -> None:
    """Print both tables."""
    print(f"{'values: flagged and alerts, promised':44}" + "".join(f"{rate:>14.0e}" for rate in RATES))
    for name, raw in distributions(np.random.default_rng(SEED)).items():
        scores = surprise_curve(raw[:CALIBRATION])(raw)
        tail = fit_tail(scores[:CALIBRATION])
        found = [shares(scores[CALIBRATION:], tail_parameters(*tail, rate)) for rate in RATES]
        cells = [
            f"{flagged / rate:8.2f}{opened / rate:6.2f}" for (flagged, opened), rate in zip(found, RATES, strict=True)
        ]
        print(f"{name:44}" + "".join(cells), flush=True)
    print(f"\n{'streams: flagged and alerts, promised':44}{'1e-03':>14}")
    for name, values in streams(np.random.default_rng(SEED)).items():
        flagged, opened = judged(name, values)
        print(f"{name:44}{flagged:8.2f}{opened:6.2f}", flush=True)


if __name__ == "__main__":
    main()
