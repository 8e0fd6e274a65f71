"""Scoring beside other detectors, and training beside a bare LSTM: ``python -m tests.benchmarks.rivals``.

Both sides run in one process on one core, in turn; medians of the repeats, and of their ratios. The whole core is
compared with river's HalfSpaceTrees at its defaults, score and learn, on eight values; and with the same network and
head over a window of 64 for each event, a thousand windows at once, in torch. A training step, loss and gradients, is
compared with forward and backward of the bare ``nn.LSTM`` on a batch of the same size.
"""

from __future__ import annotations

import platform
from collections.abc import Callable

import numba
import numpy as np
import river
import torch
from river.anomaly import HalfSpaceTrees

from streamlstm.core.model import Architecture
from streamlstm.training.fit import loss_of
from streamlstm.training.lanes import CHUNK_EVENTS, CHUNKS, Data, drawn
from streamlstm.training.network import Network
from tests.benchmarks.core_step import CHANNELS, KEYS, REPEATS, bundle, compare, walk
from tests.builders import make_history, make_record

WINDOW = 64
WINDOWS = 1_000
TREE_EVENTS = 500
LANES = 32


def trees() -> Callable[[], None]:
    """Return a call that scores and learns some events with HalfSpaceTrees."""
    forest, rng = HalfSpaceTrees(seed=0), np.random.default_rng(0)
    events = [dict(enumerate(row)) for row in rng.random((TREE_EVENTS, CHANNELS)).tolist()]

    def once() -> None:
        for event in events:
            forest.score_one(event)
            forest.learn_one(event)

    for _ in range(3):
        once()
    return once


def windows(a: Architecture) -> Callable[[], None]:
    """Return a call that runs network and head over a window for each event."""
    lstm, head = torch.nn.LSTM(a.input_width, a.hidden, batch_first=True), torch.nn.Linear(a.hidden, 2 * a.errors)
    inputs = torch.randn(WINDOWS, WINDOW, a.input_width)

    @torch.inference_mode()
    def once() -> None:
        head(lstm(inputs)[0][:, -1])

    return once


def training_step(a: Architecture) -> Callable[[], None]:
    """Return a call of the trainer's loss and gradients for each chunk of some lanes, which it draws."""
    rng = np.random.default_rng(0)
    schema = bundle().schema
    rows = rng.normal(size=(20_000, CHANNELS)).tolist()
    records = [
        make_record({"sensor": "a", "time": 10**12 + 1000 * i} | {f"f{c}": v for c, v in enumerate(row)})
        for i, row in enumerate(rows)
    ]
    history = make_history(records, schema)
    inputs = torch.randn(len(history), a.input_width)
    present = torch.ones(len(history), a.values, dtype=torch.bool)
    data = Data(inputs, torch.zeros(len(history), 0, dtype=torch.int64), present)
    network = Network(a)

    def once() -> None:
        for chunk in drawn(data, history, a.horizon, LANES, rng).chunks():
            network.zero_grad()
            loss_of(network, chunk, None)[0].backward()  # type: ignore[no-untyped-call]

    return once


def bare_training(a: Architecture) -> Callable[[], None]:
    """Return a call of the bare network's forward and backward, as often on batches of the same size."""
    lstm = torch.nn.LSTM(a.input_width, a.hidden, batch_first=True)
    inputs = torch.randn(LANES, CHUNK_EVENTS, a.input_width)

    def once() -> None:
        for _ in range(CHUNKS):
            lstm.zero_grad()
            lstm(inputs)[0].sum().backward()

    return once


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    model = bundle()
    a = model.architecture
    print(f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}, ", end="")
    print(f"numba {numba.__version__}, river {river.__version__}; medians of {REPEATS}; per event\n")
    ours = walk(model, KEYS, 1)
    compare("whole core", ours, "river HalfSpaceTrees", trees(), KEYS, TREE_EVENTS)
    compare("whole core", ours, f"the network over windows of {WINDOW}", windows(a), KEYS, WINDOWS)
    size = LANES * CHUNK_EVENTS * CHUNKS
    compare("training: loss and gradients", training_step(a), "nn.LSTM forward and backward", bare_training(a), size)


if __name__ == "__main__":
    main()
