"""The numeric walk of a poll: each event advances its key's row, and leaves its results.

Events are taken in log order, in compiled code. Some that follow each other go side by side, if each is of another key:
the model and the references are larger than the nearest cache, and what is loaded of them then serves all. An event's
sums have one order, alone or beside others, so no event's result depends on the others of its batch.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamlstm.core.alert import (
    NOTHING,
    OPEN,
    RESOLVED,
    EpisodeParameters,
)
from streamlstm.core.aligned import aligned_zeros
from streamlstm.core.arithmetic import copy
from streamlstm.core.channels import NAMES, novelty, observe_channels, start_of_stillness, stillness
from streamlstm.core.channels.seen import Seen
from streamlstm.core.compiled import compiled, inlined
from streamlstm.core.feature import FeatureParameters, write_inputs
from streamlstm.core.forecast import forecast, slot, write_errors, write_forecasts
from streamlstm.core.guard import is_adapting, judge_score
from streamlstm.core.model import Model
from streamlstm.core.score import SETTLING_EVENTS, ScoreParameters, combine, mean_square, whiten, write_shares
from streamlstm.core.state import (
    EPISODE_EVENTS,
    EVENTS,
    LAST_CHECKSUM,
    LAST_OFFSET,
    LAST_TIMESTAMP_MS,
    OPENED_OFFSET,
    OPENED_TIMESTAMP_MS,
    PEAK_SCORE,
    PHASE,
    SCALER,
    SCORED,
    Layout,
    Rows,
)
from streamlstm.core.step import lstm_step
from streamlstm.core.threshold import TailParameters

SCORED_EVENT, WARMING_UP, NO_VALUE, LATE, DUPLICATE, OUT_OF_ORDER_OFFSET = 0, 1, 2, 3, 4, 5
SIDE_BY_SIDE = 8  # events, at most
BY_SILENCE, BY_RESET = 1, 2  # why an open episode was cut short by starting its key anew
STATUSES = ("scored", "warming_up", "no_value", "late", "duplicate", "offset")

_F = np.float32


class Parameters(NamedTuple):
    """Everything the walk needs and never changes."""

    feature: FeatureParameters
    model: Model
    score: ScoreParameters
    tail: TailParameters
    episode: EpisodeParameters
    layout: Layout
    expire_after_ms: float  # infinite: never
    forget_after_ms: float
    explain_all: bool  # fill the shares of every scored event, not only where an alert acts


class Events(NamedTuple):
    """The events of a poll as columns, (n, …); ``row`` and ``place`` index rows and watermarks."""

    row: NDArray[np.int64]
    place: NDArray[np.int64]
    offset: NDArray[np.int64]
    timestamp_ms: NDArray[np.int64]
    values: NDArray[np.float64]
    categories: NDArray[np.int64]
    checksum: NDArray[np.int64]


class Results(NamedTuple):
    """What each event left behind, as columns (n, …).

    ``score``, ``probability`` and ``threshold`` are NaN unless ``status`` is scored. ``opened_offset``
    is −1 outside an episode. ``cut_short`` says why the row was started anew with an
    episode still open, or 0; the episode columns then describe that one. ``adapting`` says that the
    threshold has learned from the episode. ``location`` and ``scale``
    (n, D) are the forecast one event ahead, ``inputs`` (n, D) what came, all in squashed deviations;
    ``shares`` (n, D) is filled where an alert acts, or everywhere if asked for. ``errors`` and ``hidden`` are filled
    only if given with n rows (calibration).
    """

    status: NDArray[np.int8]
    score: NDArray[np.float32]
    probability: NDArray[np.float32]
    threshold: NDArray[np.float32]
    action: NDArray[np.int8]
    cut_short: NDArray[np.int8]
    adapting: NDArray[np.bool_]
    opened_offset: NDArray[np.int64]
    opened_timestamp_ms: NDArray[np.int64]
    episode_events: NDArray[np.int64]
    peak_score: NDArray[np.float32]
    raw: NDArray[np.float32]
    surprises: NDArray[np.float32]
    inputs: NDArray[np.float32]
    location: NDArray[np.float32]
    scale: NDArray[np.float32]
    shares: NDArray[np.float32]
    errors: NDArray[np.float32]
    hidden: NDArray[np.float32]


def new_results(events: int, parameters: Parameters, *, trace: bool = False) -> Results:
    """Return empty results for a number of events; with ``trace``, errors and hidden states too."""
    values = parameters.score.centre.shape[0] // parameters.model.horizon
    channels = len(NAMES)
    traced = events if trace else 0

    def floats(*shape: int) -> NDArray[np.float32]:
        return np.full(shape, np.nan, dtype=np.float32)

    return Results(
        status=np.zeros(events, np.int8),
        score=floats(events),
        probability=floats(events),
        threshold=floats(events),
        action=np.zeros(events, np.int8),
        cut_short=np.zeros(events, np.int8),
        adapting=np.zeros(events, np.bool_),
        opened_offset=np.full(events, -1, np.int64),
        opened_timestamp_ms=np.zeros(events, np.int64),
        episode_events=np.zeros(events, np.int64),
        peak_score=floats(events),
        raw=floats(events, channels),
        surprises=floats(events, channels),
        inputs=floats(events, values),
        location=floats(events, values),
        scale=floats(events, values),
        shares=floats(events, values),
        errors=floats(traced, parameters.score.centre.shape[0]),
        hidden=floats(traced, parameters.model.head.shape[0]),
    )


class Scratch(NamedTuple):
    """Working memory of :func:`advance`: a row for each of the events that go side by side, which ``event`` names."""

    event: NDArray[np.int64]
    judged: NDArray[np.bool_]
    inputs: NDArray[np.float32]
    present: NDArray[np.bool_]
    hidden: NDArray[np.float32]
    cell: NDArray[np.float32]
    joined: NDArray[np.float32]
    gates: NDArray[np.float32]
    top: NDArray[np.float32]
    head: NDArray[np.float32]
    errors: NDArray[np.float32]
    whitened: NDArray[np.float32]
    places: NDArray[np.float32]
    near: NDArray[np.float32]


def new_scratch(parameters: Parameters, input_width: int) -> Scratch:
    """Return working memory for a model whose first layer reads ``input_width`` inputs."""
    errors = parameters.score.centre.shape[0]
    model, layout, known = parameters.model, parameters.layout, parameters.score.fitted.novelty
    n = SIDE_BY_SIDE
    return Scratch(
        event=np.zeros(n, np.int64),
        judged=np.zeros(n, np.bool_),
        inputs=aligned_zeros(n, input_width),
        present=np.zeros((n, errors // model.horizon), np.bool_),
        hidden=aligned_zeros(n, layout.cell - layout.hidden),
        cell=aligned_zeros(n, layout.forecast - layout.cell),
        joined=aligned_zeros(n, max(matrix.shape[0] for matrix in model.weights)),
        gates=aligned_zeros(n, model.biases.shape[1]),
        top=aligned_zeros(n, model.head.shape[0]),
        head=aligned_zeros(n, model.head_bias.shape[0]),
        errors=aligned_zeros(n, parameters.score.whitening.shape[0]),
        whitened=aligned_zeros(n, errors),
        places=aligned_zeros(n, known.centre.shape[0]),
        near=novelty.new_scratch(known, n),
    )


@inlined
def _admit(integers: NDArray[np.int64], i: int, events: Events, watermark_ms: int, parameters: Parameters) -> int:
    """Say whether an event may advance its row: its status, or −1 to start the row anew first."""
    timestamp_ms = events.timestamp_ms[i]
    if integers[EVENTS] == 0:
        return SCORED_EVENT
    if events.offset[i] <= integers[LAST_OFFSET]:
        return OUT_OF_ORDER_OFFSET
    if watermark_ms - integers[LAST_TIMESTAMP_MS] > parameters.forget_after_ms:
        return -1  # the log may have dropped the state: whether it has must make no difference
    if timestamp_ms < integers[LAST_TIMESTAMP_MS]:
        return LATE
    if timestamp_ms - integers[LAST_TIMESTAMP_MS] > parameters.expire_after_ms:
        return -1
    if timestamp_ms == integers[LAST_TIMESTAMP_MS] and events.checksum[i] == integers[LAST_CHECKSUM]:
        return DUPLICATE
    return SCORED_EVENT


@compiled
def _note_episode(i: int, integers: NDArray[np.int64], peak_score: np.float32, results: Results) -> None:
    results.opened_offset[i] = integers[OPENED_OFFSET]
    results.opened_timestamp_ms[i] = integers[OPENED_TIMESTAMP_MS]
    results.episode_events[i] = integers[EPISODE_EVENTS]
    results.peak_score[i] = peak_score


@compiled
def _start_anew(
    i: int, integers: NDArray[np.int64], floats: NDArray[np.float32], parameters: Parameters, results: Results
) -> None:
    """Empty a row, after a long silence or under a new model; an episode still open ends here."""
    if integers[PHASE] == OPEN:
        results.cut_short[i] = BY_SILENCE if integers[EVENTS] > 0 else BY_RESET
        _note_episode(i, integers, floats[parameters.layout.episode + PEAK_SCORE], results)
    scaler = integers[SCALER]
    integers[:] = 0
    integers[SCALER] = scaler
    floats[:] = _F(0.0)
    floats[parameters.layout.tail] = parameters.tail.start
    floats[parameters.layout.tail + 1] = parameters.tail.scale


@compiled
def _write_embeddings(inputs: NDArray[np.float32], categories: NDArray[np.int64], model: Model) -> None:
    size = model.embeddings.shape[1]
    start = inputs.shape[0] - categories.shape[0] * size
    for feature in range(categories.shape[0]):
        row = model.embedding_start[feature] + categories[feature]
        copy(inputs[start + feature * size :], model.embeddings[row])


@inlined
def _judge(
    i: int,
    integers: NDArray[np.int64],
    tails: NDArray[np.float32],
    episode: NDArray[np.float32],
    parameters: Parameters,
    results: Results,
) -> None:
    """Turn the raw channels of event ``i`` into score, probability and action; then learn."""
    score = combine(results.surprises[i], results.raw[i], parameters.score)
    probability, threshold, action = judge_score(integers, tails, episode, score, parameters.episode, parameters.tail)
    results.score[i] = score
    results.probability[i] = probability
    results.threshold[i] = threshold
    results.action[i] = action
    if integers[PHASE] == OPEN or action == RESOLVED:
        _note_episode(i, integers, episode[PEAK_SCORE], results)
    results.adapting[i] = is_adapting(integers, parameters.episode)


@inlined
def _meet(
    place: int,
    i: int,
    events: Events,
    rows: Rows,
    watermarks: NDArray[np.int64],
    parameters: Parameters,
    results: Results,
    scratch: Scratch,
) -> bool:
    """Admit event ``i`` and note it, its inputs and its errors in the scratch space's row ``place``, or refuse it."""
    feature, model, layout = parameters.feature, parameters.model, parameters.layout
    integers, floats = rows.integers[events.row[i]], rows.floats[events.row[i]]
    status = _admit(integers, i, events, watermarks[events.place[i]], parameters)
    if status > 0:
        results.status[i] = status
        return False
    if status < 0 or (integers[EVENTS] == 0 and integers[PHASE] == OPEN):
        _start_anew(i, integers, floats, parameters, results)
    inputs, present, values = scratch.inputs[place], scratch.present[place], results.location.shape[1]
    event, timestamp_ms = integers[EVENTS], events.timestamp_ms[i]
    gap_ms = float(timestamp_ms - integers[LAST_TIMESTAMP_MS]) if event > 0 else -1.0
    write_inputs(inputs, present, events.values[i], gap_ms, timestamp_ms, integers[SCALER], feature)
    _write_embeddings(inputs, events.categories[i], model)
    copy(results.inputs[i], inputs[:values])
    judged = event >= max(model.horizon, SETTLING_EVENTS) and present.any()
    if judged:
        waiting = floats[layout.forecast : layout.channels]
        start = slot(event, 1, values)
        copy(results.location[i], waiting[start : start + values])
        copy(results.scale[i], waiting[start + values : start + 2 * values])
        errors = scratch.errors[place, : scratch.whitened.shape[1]]
        write_errors(errors, waiting, event, inputs, present, parameters.score.centre)
    integers[EVENTS] += 1
    integers[LAST_TIMESTAMP_MS] = timestamp_ms
    integers[LAST_OFFSET] = events.offset[i]
    integers[LAST_CHECKSUM] = events.checksum[i]
    watermarks[events.place[i]] = max(watermarks[events.place[i]], timestamp_ms)
    scratch.event[place], scratch.judged[place] = i, judged
    return True


@inlined
def _step(count: int, events: Events, rows: Rows, parameters: Parameters, results: Results, scratch: Scratch) -> None:
    """Take the events in the scratch space's first rows through the model; keep their keys' states and forecasts."""
    model, layout, values = parameters.model, parameters.layout, results.location.shape[1]
    hidden, cell, top, head = scratch.hidden[:count], scratch.cell[:count], scratch.top[:count], scratch.head[:count]
    for k in range(count):
        floats = rows.floats[events.row[scratch.event[k]]]
        copy(hidden[k], floats[layout.hidden : layout.cell])
        copy(cell[k], floats[layout.cell : layout.forecast])
    lstm_step(scratch.inputs[:count], hidden, cell, model, scratch.joined[:count], scratch.gates[:count])
    for k in range(count):
        copy(top[k], hidden[k, hidden.shape[1] - top.shape[1] :])
    forecast(head, top, model)
    for k in range(count):
        i = scratch.event[k]
        integers, floats = rows.integers[events.row[i]], rows.floats[events.row[i]]
        copy(floats[layout.hidden :], hidden[k])
        copy(floats[layout.cell :], cell[k])
        write_forecasts(floats[layout.forecast : layout.channels], integers[EVENTS] - 1, values, head[k])
        if results.hidden.shape[0] > 0:
            copy(results.hidden[i], top[k])


@compiled
def _blame(
    i: int,
    floats: NDArray[np.float32],
    errors: NDArray[np.float32],
    whitened: NDArray[np.float32],
    parameters: Parameters,
    results: Results,
) -> None:
    """Write whose share the score of event ``i`` is: by forecast errors, and by the value that is too still."""
    shares, layout = results.shares[i], parameters.layout
    write_shares(shares, errors, whitened, parameters.score.whitening)
    of_stillness = floats[layout.channels + start_of_stillness(shares.shape[0]) : layout.tail]
    stillness.blame(shares, of_stillness, results.surprises[i, -1] / max(results.score[i], _F(1e-6)))


@inlined
def _learn(k: int, events: Events, rows: Rows, parameters: Parameters, results: Results, scratch: Scratch) -> None:
    """Judge the event in the scratch space's row ``k``, and advance what is known of its key's channels and scores."""
    i, layout, score = scratch.event[k], parameters.layout, parameters.score
    integers, floats = rows.integers[events.row[i]], rows.floats[events.row[i]]
    warming_up = integers[EVENTS] <= score.warmup_events
    if not scratch.judged[k]:
        results.status[i] = WARMING_UP if warming_up else NO_VALUE
        return
    errors, whitened = scratch.errors[k], scratch.whitened[k]
    if results.errors.shape[0] > 0:
        copy(results.errors[i], errors[: whitened.shape[0]])
    distance = mean_square(whitened, scratch.present[k])
    integers[SCORED] += 1
    newness = _F(2.0) / _F(min(integers[SCORED], score.span) + 1)
    inputs = scratch.inputs[k, : results.location.shape[1]]
    seen = Seen(distance, inputs, scratch.present[k], scratch.top[k], newness, integers[SCORED])
    observe_channels(results.raw[i], floats[layout.channels : layout.tail], seen, score.fitted, scratch.near[k])
    if warming_up:
        results.status[i] = WARMING_UP
        return
    _judge(i, integers, floats[layout.tail : layout.episode], floats[layout.episode :], parameters, results)
    if results.action[i] != NOTHING or parameters.explain_all:
        _blame(i, floats, errors, whitened, parameters, results)


@compiled
def _is_met(row: int, met: int, rows: NDArray[np.int64], event: NDArray[np.int64]) -> bool:
    """Return whether one of the first ``met`` events moves this row: then the next event must find it up to date."""
    times = 0
    for k in range(met):
        times += rows[event[k]] == row
    return times > 0


@inlined
def _go(count: int, events: Events, rows: Rows, parameters: Parameters, results: Results, scratch: Scratch) -> None:
    """Take the events that were met through model, channels and threshold, side by side as far as they share arrays."""
    _step(count, events, rows, parameters, results, scratch)
    if scratch.judged[:count].any():
        whiten(scratch.whitened[:count], scratch.errors[:count], parameters.score.whitening)
        novelty.measure(scratch.near, scratch.places[:count], scratch.top[:count], parameters.score.fitted.novelty)
    for k in range(count):
        _learn(k, events, rows, parameters, results, scratch)


@compiled
def advance(
    events: Events,
    rows: Rows,
    watermarks: NDArray[np.int64],
    parameters: Parameters,
    results: Results,
    scratch: Scratch,
) -> None:
    """Advance ``rows`` and ``watermarks`` (ms, per place) by all events, in place, and fill ``results``.

    Score first, then learn: an event meets the forecasts and the threshold made before it; what is
    late, a duplicate, or out of offset order changes nothing.
    """
    met, count = 0, events.offset.shape[0]
    for i in range(count + 1):
        if met > 0 and (i == count or met == SIDE_BY_SIDE or _is_met(events.row[i], met, events.row, scratch.event)):
            _go(met, events, rows, parameters, results, scratch)
            met = 0
        if i < count and _meet(met, i, events, rows, watermarks, parameters, results, scratch):
            met += 1
