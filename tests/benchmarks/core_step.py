"""What scoring costs beside a bare LSTM step: ``python -m tests.benchmarks.core_step``.

Both sides run in one process on one core, in turn; the median of the repeats is printed, and their ratio.
The bare step is one ``addmm`` over input and state and the gates, on the same batch, in torch: no
features, head, channels, threshold or alerts. The hot key sends all events of a poll; the obvious way is a
cell per event.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable

import numba
import numpy as np
import torch

from streamlstm.core.advance import advance
from streamlstm.core.bundle import Bundle
from streamlstm.core.columns import Events, new_results, new_scratch
from streamlstm.core.schema import StreamSchema
from streamlstm.core.state import INTEGERS, Rows
from streamlstm.training.train import Options, train
from tests.builders import make_history, make_record

KEYS = 10_000
HOT_EVENTS = 1_000  # in one poll
CHANNELS = 8
REPEATS = 7


def bundle(hidden: int = 48) -> Bundle:
    """Return a bundle of the recipe's size: H = 48, D = 8, L = 4, all channels."""
    features = "".join(f"[features.f{c}]\n" for c in range(CHANNELS))
    schema = StreamSchema.from_toml(f'key = "sensor"\ntimestamp_unit = "ms"\n{features}')
    rng = np.random.default_rng(0)
    records = [
        make_record(
            {"sensor": "a", "time": 10**12 + 1000 * i, **{f"f{c}": float(rng.normal()) for c in range(CHANNELS)}}
        )
        for i in range(8000)
    ]
    return train(make_history(records, schema), schema, Options(hidden=hidden, horizon=4, updates=10, lanes=4)).bundle


def seconds(work: Callable[[], None]) -> float:
    """Return the seconds one call takes."""
    started_s = time.perf_counter()
    work()
    return time.perf_counter() - started_s


def compare(
    name: str,
    ours: Callable[[], None],
    other_name: str,
    other: Callable[[], None],
    events: int,
    other_events: int | None = None,
) -> None:
    """Run both in turn and print microseconds per event and the median of the pairwise ratios.

    ``events`` is how many a call takes; ``other_events``, how many one of the other's, if not as many.
    """
    counts = events, other_events or events
    ours()
    other()
    runs = [(seconds(ours), seconds(other)) for _ in range(REPEATS)]
    pairs = [(a / counts[0] * 1e6, b / counts[1] * 1e6) for a, b in runs]
    mine, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"{name:34} {mine:8.2f} µs   {other_name:34} {theirs:8.2f} µs   ratio {ratio:.3g}")


def walk(bundle: Bundle, keys: int, each: int) -> Callable[[], None]:
    """Return a call that takes one poll through the whole core: ``each`` events of each of ``keys`` keys."""
    parameters = bundle.parameters()
    rng = np.random.default_rng(1)
    rows = Rows(np.zeros((keys, INTEGERS), np.int64), np.zeros((keys, parameters.layout.width), np.float32))
    rows.floats[:, parameters.layout.tail] = parameters.tail.start
    rows.floats[:, parameters.layout.tail + 1] = parameters.tail.scale
    count = keys * each
    values, scratch = rng.normal(size=(count, CHANNELS)), new_scratch(parameters, bundle.architecture.input_width)
    watermarks, step = np.zeros(1, np.int64), [0]

    def once() -> None:
        step[0] += 1
        events = Events(
            row=np.arange(count) % keys,
            place=np.zeros(count, np.int64),
            offset=np.arange(count) + step[0] * count,
            timestamp_ms=10**12 + 1000 * (np.arange(count) // keys + step[0] * each),
            values=values,
            categories=np.zeros((count, 0), np.int64),
            checksum=np.arange(count),
        )
        advance(events, rows, watermarks, parameters, new_results(count, parameters), scratch)

    for _ in range(parameters.score.warmup_events + 2):
        once()
    return once


def bare_step(inputs: int, hidden: int, keys: int) -> Callable[[], None]:
    """Return a call of the batched LSTM step alone, in torch."""
    x, h, c = torch.randn(keys, inputs), torch.randn(keys, hidden), torch.randn(keys, hidden)
    weight, bias = torch.randn(inputs + hidden, 4 * hidden), torch.randn(4 * hidden)

    @torch.inference_mode()
    def once() -> None:
        gates = torch.addmm(bias, torch.cat([x, h], 1), weight)
        i, f, o = torch.sigmoid(gates[:, : 3 * hidden]).chunk(3, 1)
        torch.tanh(f * c + i * torch.tanh(gates[:, 3 * hidden :])).mul_(o)

    return once


def cell_and_head(inputs: int, hidden: int, outputs: int, events: int) -> Callable[[], None]:
    """Return a call of the obvious way: ``nn.LSTMCell`` and a linear head, once per event."""
    cell, head = torch.nn.LSTMCell(inputs, hidden), torch.nn.Linear(hidden, outputs)
    x, state = torch.randn(1, inputs), (torch.zeros(1, hidden), torch.zeros(1, hidden))

    @torch.inference_mode()
    def once() -> None:
        current = state
        for _ in range(events):
            current = cell(x, current)
            head(current[0])

    return once


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    model = bundle()
    a = model.architecture
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, ", end="")
    print(f"torch {torch.__version__}, numba {numba.__version__}; medians of {REPEATS}; per event\n")
    bare = bare_step(a.input_width, a.hidden, KEYS)
    compare("whole core, 10,000 keys", walk(model, KEYS, 1), "bare LSTM step, batched, torch", bare, KEYS)
    obvious = cell_and_head(a.input_width, a.hidden, 2 * a.errors, HOT_EVENTS)
    compare("whole core, one hot key", walk(model, 1, HOT_EVENTS), "LSTMCell and head, torch", obvious, HOT_EVENTS)
    print(f"\nstate: {model.parameters().layout.width * 4 + INTEGERS * 8} bytes per key")


if __name__ == "__main__":
    main()
