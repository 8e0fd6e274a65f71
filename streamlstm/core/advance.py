"""The numeric walk of a poll: each event advances its key's row, and leaves its results.

Events are taken in log order, in compiled code. Some that follow each other go side by side, if each is of another key:
the model and the references are larger than the nearest cache, and what is loaded of them then serves all. An event's
sums have one order, alone or beside others, so no event's result depends on the others of its batch.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamlstm.core.alert import (
    NOTHING,
    OPEN,
    OPENED,
    RESOLVED,
)
from streamlstm.core.arithmetic import copy
from streamlstm.core.channels import novelty, observe_channels, start_of_stillness, stillness
from streamlstm.core.channels.seen import Seen
from streamlstm.core.columns import (
    BY_NEXT,
    BY_RESET,
    BY_SILENCE,
    DUPLICATE,
    LATE,
    NO_VALUE,
    OUT_OF_ORDER_OFFSET,
    SCORED_EVENT,
    SIDE_BY_SIDE,
    WARMING_UP,
    Events,
    Parameters,
    Results,
    Scratch,
)
from streamlstm.core.compiled import compiled, inlined
from streamlstm.core.feature import write_inputs
from streamlstm.core.forecast import forecast, slot, write_errors, write_forecasts
from streamlstm.core.guard import is_adapting, judge_score
from streamlstm.core.model import Model
from streamlstm.core.score import SETTLING_EVENTS, combine, mean_square, whiten, write_shares
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
    Rows,
)
from streamlstm.core.step import lstm_step

_F = np.float32


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
def _note_cut(i: int, integers: NDArray[np.int64], peak_score: np.float32, results: Results) -> None:
    """Note the episode that is open, before the event ``i`` may end it."""
    results.cut_offset[i] = integers[OPENED_OFFSET]
    results.cut_timestamp_ms[i] = integers[OPENED_TIMESTAMP_MS]
    results.cut_events[i] = integers[EPISODE_EVENTS]
    results.cut_peak_score[i] = peak_score


@compiled
def _start_anew(
    i: int, integers: NDArray[np.int64], floats: NDArray[np.float32], parameters: Parameters, results: Results
) -> None:
    """Empty a row, after a long silence or under a new model; an episode still open ends here."""
    if integers[PHASE] == OPEN:
        results.cut_short[i] = BY_SILENCE if integers[EVENTS] > 0 else BY_RESET
        _note_cut(i, integers, floats[parameters.layout.episode + PEAK_SCORE], results)
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
    was_open = integers[PHASE] == OPEN
    if was_open:
        _note_cut(i, integers, episode[PEAK_SCORE], results)
    probability, threshold, action = judge_score(integers, tails, episode, score, parameters.episode, parameters.tail)
    results.score[i] = score
    results.probability[i] = probability
    results.threshold[i] = threshold
    results.action[i] = action
    if was_open and action == OPENED:
        results.cut_short[i] = BY_NEXT
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
