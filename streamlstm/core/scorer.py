"""The front door of the core: a poll of records in, a commit out; nothing is current until accepted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from streamlstm.core.advance import advance
from streamlstm.core.alert import OPEN
from streamlstm.core.bundle import Alerting, Bundle
from streamlstm.core.columns import (
    DUPLICATE,
    LATE,
    OUT_OF_ORDER_OFFSET,
    STATUSES,
    Events,
    Results,
    new_results,
    new_scratch,
)
from streamlstm.core.commit import Commit, Output, StateRow
from streamlstm.core.event import EventBatch, EventDecoder, Parse, Rejection
from streamlstm.core.evidence import Told, alert_records, positions_told, score_records
from streamlstm.core.feature import category_ids
from streamlstm.core.log import Headers, Record
from streamlstm.core.pack import packed
from streamlstm.core.record import AlertRecord, ScoreRecord, encode
from streamlstm.core.state import (
    EPISODE_EVENTS,
    EPISODE_FLOATS,
    EVENTS,
    INTEGERS,
    LAST_TIMESTAMP_MS,
    OPENED_OFFSET,
    OPENED_TIMESTAMP_MS,
    PHASE,
    SCALER,
    Arena,
    Key,
    Rows,
    check_numbers,
    from_bytes,
    to_bytes,
)
from streamlstm.core.trace import trace_headers
from streamlstm.errors import BundleError, LogError

STATE_VERSION = 1
DEFAULT_MAX_KEYS = 1_000_000


@dataclass(frozen=True)
class Poll:
    """A decoded poll: its events, what was rejected, and the keys it touches, each once."""

    records: Sequence[Record]
    batch: EventBatch
    rejections: list[Rejection]
    keys: list[Key]
    row: NDArray[np.int64]


@dataclass(frozen=True)
class Outcome:
    """A scored poll that is not yet current: what to commit, and the rows to accept after it.

    ``scores`` and ``alerts`` are the records before encoding, in the order of the events; ``told``: the position in
    the poll's batch of each score. ``watched_ms``: event time
    that passed for the poll's keys, all together, but for those that started anew after a silence.
    """

    poll: Poll
    results: Results
    told: list[int]
    scores: list[ScoreRecord]
    alerts: list[AlertRecord]
    rejections: list[Rejection]
    rows: Rows
    watermarks: dict[int, int]
    watched_ms: int

    @property
    def scored(self) -> int:
        """Return how many events were taken in: all but late ones and duplicates."""
        return len(self.results.status) - int(np.isin(self.results.status, (LATE, DUPLICATE)).sum())


class Scorer:
    """Scores polls of one topic, in order, with one bundle.

    Per poll: :meth:`read`, load the states of :meth:`missing` keys from the log, :meth:`score`,
    :meth:`commit_of`, commit that to the log, and :meth:`accept`. Dropping an :class:`Outcome` instead
    leaves the scorer as it was; one that accepted what was then not committed is of no use any more.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        alerting: Alerting | None = None,
        max_keys: int = DEFAULT_MAX_KEYS,
        reset_foreign_states: bool = False,
        explain_all: bool = False,
        told: Told = "all",
        parse: Parse | None = None,
    ) -> None:
        self.bundle = bundle
        self.parameters = bundle.parameters(alerting, explain_all=explain_all)
        self.arena = Arena(self.parameters.layout, max_keys)
        self.watermarks: dict[int, int] = {}
        self._vocabularies = [bundle.vocabularies[name] for name in bundle.schema.categorical]
        self._decoder = EventDecoder(bundle.schema, parse)
        self._scratch = new_scratch(self.parameters, bundle.architecture.input_width)
        self._reset_foreign_states = reset_foreign_states
        self._told = told
        self._state_header = bytes([STATE_VERSION]) + bundle.name.encode()
        self._fresh_tail = (float(self.parameters.tail.start), float(self.parameters.tail.scale))

    def read(self, records: Sequence[Record]) -> Poll:
        """Decode a poll. Changes nothing."""
        batch, rejections = self._decoder.decode(records)
        pairs = list(zip(batch.partition.tolist(), batch.keys, strict=True))
        row_of = {key: row for row, key in enumerate(dict.fromkeys(pairs))}
        row = np.fromiter(map(row_of.__getitem__, pairs), np.int64, len(pairs))
        return Poll(records, batch, rejections, list(row_of), row)

    def missing(self, poll: Poll) -> list[Key]:
        """Return the keys of a poll whose rows are not in memory, and may be in the log."""
        return self.arena.missing(poll.keys)

    def score(self, poll: Poll, stored: Mapping[Key, bytes]) -> Outcome:
        """Advance copies of the poll's rows. Changes nothing that is current.

        ``stored``: committed states of keys that were :meth:`missing`. Raises :class:`BundleError` for
        a state of another bundle, :class:`LogError` for an offset that does not increase.
        """
        rows = self._gather(poll.keys, stored)
        before = rows.integers[:, [EVENTS, LAST_TIMESTAMP_MS]]
        partitions, place = np.unique(poll.batch.partition, return_inverse=True)
        watermarks = np.array([self.watermarks.get(p, 0) for p in partitions.tolist()], dtype=np.int64)
        events = Events(
            row=poll.row,
            place=place.astype(np.int64, copy=False),
            offset=poll.batch.offset,
            timestamp_ms=poll.batch.timestamp_ms,
            values=poll.batch.values,
            categories=category_ids(poll.batch.categories, self._vocabularies),
            checksum=poll.batch.checksum,
        )
        results = new_results(len(poll.batch), self.parameters)
        advance(events, rows, watermarks, self.parameters, results, self._scratch)
        topic, explain_all = poll.records[0].topic if poll.records else "", self.parameters.explain_all
        told = positions_told(poll.batch, results, self._told, self.parameters.tail.alarm_rate)
        return Outcome(
            poll=poll,
            results=results,
            told=told,
            scores=score_records(topic, poll.batch, results, self.bundle, told, explain_all=explain_all),
            alerts=alert_records(topic, poll.batch, results, self.bundle),
            rejections=sorted(
                poll.rejections + _late_rejections(poll, results, self.bundle.schema.timestamp),
                key=lambda rejection: (rejection.record.partition, rejection.record.offset),
            ),
            rows=rows,
            watermarks=dict(zip(partitions.tolist(), watermarks.tolist(), strict=True)),
            watched_ms=_watched_ms(before, rows, poll),
        )

    def commit_of(self, outcome: Outcome) -> Commit:
        """Return everything that an outcome must store, encoded. Changes nothing."""
        batch, told, traces = outcome.poll.batch, outcome.told, _traces(outcome.poll)
        places = zip(batch.partition[told].tolist(), batch.offset[told].tolist(), strict=True)
        columns = zip(
            batch.partition[told].tolist(),
            [batch.keys[i] for i in told],
            map(encode, outcome.scores),
            [traces.get(place, ()) for place in places] if traces else repeat((), len(told)),
            strict=True,
        )
        scores = list(map(Output._make, columns))
        return Commit(
            scores=packed(scores, (s.time_ms for s in outcome.scores)) if self._told == "packed" else scores,
            alerts=[
                Output(a.partition, a.key.encode(), encode(a), traces.get((a.partition, a.offset), ()))
                for a in outcome.alerts
            ],
            dead_letters=[_dead_letter(rejection) for rejection in outcome.rejections],
            states=self._states(outcome),
            offsets=_offsets(outcome.poll.records),
            watermarks=outcome.watermarks,
            expire_before_ms=self._expire_before_ms(outcome.watermarks),
        )

    def _expire_before_ms(self, watermarks: Mapping[int, int]) -> dict[int, int]:
        """Say which states the log may drop: those whose key would start anew anyway.

        Silence is judged by a key's own times, the watermark is other keys' time; so the log keeps a state for
        longer (:attr:`StreamSchema.forget_after_ms`), and the walk starts a key anew by the same rule.
        """
        kept_ms = self.bundle.schema.forget_after_ms
        return {} if math.isinf(kept_ms) else {p: watermark - int(kept_ms) for p, watermark in watermarks.items()}

    def accept(self, outcome: Outcome) -> None:
        """Make an outcome current."""
        self.arena.put(outcome.poll.keys, outcome.rows)
        self.watermarks.update(outcome.watermarks)

    def forget(self, partition: int) -> None:
        """Drop what is remembered of a partition: somebody else may have scored it since."""
        self.arena.drop_partition(partition)
        self.watermarks.pop(partition, None)

    def _gather(self, keys: Sequence[Key], stored: Mapping[Key, bytes]) -> Rows:
        rows = self.arena.gather(keys, self._fresh_tail)
        for position, key in enumerate(keys):
            if key in stored and self._starts_anew(stored[key]):
                _carry_open_episode(rows, position, stored[key][len(self._state_header) :])
            elif key in stored:
                restored = self.read_state(key, stored[key])
                rows.integers[position] = restored.integers[0]
                rows.floats[position] = restored.floats[0]
            if rows.integers[position, EVENTS] == 0:
                rows.integers[position, SCALER] = self.bundle.scaler_of.get(key[1].decode(), 0)
        return rows

    def _starts_anew(self, data: bytes) -> bool:
        return self._reset_foreign_states and not data.startswith(self._state_header)

    def read_state(self, key: Key, data: bytes) -> Rows:
        """Return the row in a committed state; raises :class:`BundleError` if another bundle made it."""
        header = data[: len(self._state_header)]
        if header != self._state_header:
            raise BundleError(
                f"key {key[1].decode()!r} of partition {key[0]} has a state of bundle "
                f"{header[1:].decode(errors='replace')!r}, not of {self.bundle.name!r}: score with that bundle, "
                "or start its keys anew with --on-model-change reset"
            )
        try:
            rows = from_bytes(data[len(header) :], self.arena.layout)
            check_numbers(rows, len(self.bundle.feature.mean))
        except ValueError as error:
            raise LogError(f"key {key[1].decode()!r} of partition {key[0]}: {error}") from error
        return rows

    def _states(self, outcome: Outcome) -> dict[Key, StateRow]:
        rows = outcome.rows
        return {
            key: StateRow(value, timestamp_ms, phase == OPEN)
            for key, value, timestamp_ms, phase, events in zip(
                outcome.poll.keys,
                to_bytes(rows, self._state_header),
                rows.integers[:, LAST_TIMESTAMP_MS].tolist(),
                rows.integers[:, PHASE].tolist(),
                rows.integers[:, EVENTS].tolist(),
                strict=True,
            )
            if events > 0
        }


def _watched_ms(before: NDArray[np.int64], rows: Rows, poll: Poll) -> int:
    """Return the event time that a poll adds, all keys together; ``before`` (K, 2): events and last time until it."""
    events, last_ms = rows.integers[:, EVENTS], rows.integers[:, LAST_TIMESTAMP_MS]
    first = np.flatnonzero(np.diff(np.maximum.accumulate(poll.row), prepend=-1))  # rows are numbered as they come
    since_ms = np.where(before[:, 0] > 0, before[:, 1], poll.batch.timestamp_ms[first])
    return int(np.maximum(last_ms - since_ms, 0)[events > before[:, 0]].sum())


def _carry_open_episode(rows: Rows, position: int, data: bytes) -> None:
    """Keep what tells the end of an episode that another bundle left open: integers, and the peak at the end."""
    if len(data) < INTEGERS * 8 + EPISODE_FLOATS * 4:
        return
    integers = np.frombuffer(data, dtype="<i8", count=INTEGERS)
    if integers[PHASE] == OPEN:
        for column in (PHASE, OPENED_OFFSET, OPENED_TIMESTAMP_MS, EPISODE_EVENTS):
            rows.integers[position, column] = integers[column]
        rows.floats[position, -EPISODE_FLOATS:] = np.frombuffer(data[-EPISODE_FLOATS * 4 :], dtype="<f4")


def _traces(poll: Poll) -> dict[tuple[int, int], Headers]:
    """Return the trace context of those records of a poll that have one, by partition and offset."""
    return {
        (record.partition, record.offset): trace
        for record in poll.records
        if record.headers and (trace := trace_headers(record.headers))
    }


def _late_rejections(poll: Poll, results: Results, field: str) -> list[Rejection]:
    """Return the rejections that only a key's state can tell; raise if an offset did not increase."""
    rejections = []
    for i in np.flatnonzero(results.status >= LATE).tolist():
        status = int(results.status[i])
        record = poll.records[int(poll.batch.record_index[i])]
        key = poll.batch.keys[i].decode()
        if status == OUT_OF_ORDER_OFFSET:
            raise LogError(
                f"topic {record.topic!r} partition {record.partition}: offset {record.offset} of key {key!r} was "
                "scored before, but the state says so and the committed offset does not: another program wrote "
                "to the group's states or offsets, or the topic was deleted and made anew; use a new --group"
            )
        if status == LATE:
            detail = f"{field} lies before the key's last event; events of a key are read in time order"
            rejections.append(Rejection(record, STATUSES[LATE], detail))
        elif status == DUPLICATE:
            detail = f"same key, same {field} and same bytes as the event before"
            rejections.append(Rejection(record, STATUSES[DUPLICATE], detail))
    return rejections


def _dead_letter(rejection: Rejection) -> Output:
    """Return the original bytes, with the reason and the place they came from in headers."""
    record = rejection.record
    headers = (
        ("reason", rejection.reason.encode()),
        ("detail", rejection.detail.encode()),
        ("topic", record.topic.encode()),
        ("partition", str(record.partition).encode()),
        ("offset", str(record.offset).encode()),
        ("timestamp_ms", str(record.timestamp_ms).encode()),
    )
    return Output(record.partition, record.key, record.value, headers + record.headers)


def _offsets(records: Sequence[Record]) -> dict[int, tuple[int, int]]:
    """Return, per partition, the first offset of the poll and the one after its last."""
    if not records:
        return {}
    _, partitions, offsets, *_ = zip(*records, strict=True)
    first = dict(zip(reversed(partitions), reversed(offsets), strict=True))
    return {p: (first[p], last + 1) for p, last in dict(zip(partitions, offsets, strict=True)).items()}
