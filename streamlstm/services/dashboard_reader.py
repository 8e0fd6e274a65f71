"""The dashboard's reader: follows the topics of a stream, keeps the board, and publishes what has changed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec

from streamlstm.adapters.web.hub import Frame
from streamlstm.core.feedback import LONGEST_MUTE_MS
from streamlstm.core.log import EventLog, Record
from streamlstm.core.pack import unpacked
from streamlstm.core.topic import alerts_topic, dead_letters_topic, feedback_topic, scores_topic
from streamlstm.dashboard.board import Board, change
from streamlstm.errors import LogUnavailable
from streamlstm.services.follow import Follower, last, since
from streamlstm.services.outage import Outage

TICK_S = 0.5  # between looks, and between pushes at most
AT_ONCE = 4_000  # records per partition in one look, under the lock
PATIENCE_S = 10.0  # for which events may wait for a score while none comes
LONG_MS, LONG_GAPS = 60_000, 20.0  # without a score, although none is awaited
CALM_S = 2.0  # a page that hears nothing for some seconds says that it is cut off

# How far back it reads when it starts, records in all partitions together.
SCORES_BACK, ALERTS_BACK, LETTERS_BACK, FEEDBACK_BACK = 200_000, 20_000, 5_000, 100_000


@dataclass
class Lag:
    """How far the scorer is behind the input: per partition, up to where events have a score or a dead letter.

    Nobody can tell where only some scores are told: most offsets between the first and the last one have neither.
    """

    done: dict[int, int] = field(default_factory=dict)
    _first: dict[int, int] = field(default_factory=dict)
    _told: int = 0

    def take_scores(self, records: Sequence[Record]) -> None:
        """Note the first and the last score of each partition."""
        self._take(records, _offset_of_score)

    def take_letters(self, records: Sequence[Record]) -> None:
        """Note the first and the last dead letter of each partition."""
        self._take(records, lambda record: int(dict(record.headers).get("offset", b"-1")))

    def events(self, ends: Sequence[int]) -> int:
        """Return how many events wait for a score, given the input's ends."""
        return sum(max(0, end - self.done.get(partition, 0)) for partition, end in enumerate(ends))

    @property
    def all_told(self) -> bool:
        """Whether events have score records, all of them and not one in a hundred."""
        return 2 * self._told >= sum(done - self._first[partition] for partition, done in self.done.items())

    def _take(self, records: Sequence[Record], offset_of: Callable[[Record], int]) -> None:
        self._told += len(records)
        last, first = ({record.partition: record for record in some} for some in (records, reversed(records)))
        for record in (*last.values(), *first.values()):
            partition, offset = record.partition, offset_of(record)
            if offset < 0:
                continue  # the topic may hold anything
            self.done[partition] = max(self.done.get(partition, 0), offset + 1)
            self._first[partition] = min(self._first.get(partition, offset), offset)


class Standstill:
    """Whether nothing is scored: no score came yet, or none for a while, and events wait for one or come no more."""

    def __init__(self) -> None:
        self._waits_since_s: float | None = None

    def stands(self, head: Mapping[str, Any], now_s: float) -> bool:
        """Look at the page's figures now, as at every look before; ``now_s`` never goes back."""
        if not head["lag"]:
            self._waits_since_s = None
        elif self._waits_since_s is None:
            self._waits_since_s = now_s
        quiet_ms = head["quiet_ms"]
        if quiet_ms is None:
            return bool(head["keys"] == 0)
        if not head["all_told"]:
            return False
        waits = self._waits_since_s is not None and now_s - self._waits_since_s >= PATIENCE_S
        return bool(waits or quiet_ms > max(LONG_MS, LONG_GAPS * head["gap_ms"]))


class _Offset(msgspec.Struct):
    offset: int


def _offset_of_score(record: Record) -> int:
    try:
        return msgspec.json.decode(record.value, type=_Offset).offset
    except msgspec.MsgspecError:
        return -1


class Reader:
    """A thread that reads until it is closed, or cannot go on; then ``error`` says why, and ``on_end`` is called.

    ``may_write``: make the feedback topic if it is missing.
    """

    def __init__(
        self,
        open_log: Callable[[], EventLog],
        board: Board,
        lock: threading.Lock,
        *,
        give_up_after_s: float,
        may_write: bool,
        publish: Callable[[Frame], None],
        on_end: Callable[[], None],
    ) -> None:
        self.error: Exception | None = None
        self._open, self._board, self._lock = open_log, board, lock
        self._give_up_after_s, self._may_write = give_up_after_s, may_write
        self._publish, self._on_end = publish, on_end
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)
        self._lag, self._standstill = Lag(), Standstill()
        self._state: dict[str, Any] | None = None
        self._number = 0
        self._published_s = 0.0
        topic, now_ms = board.topic, time.time_ns() // 1_000_000
        self._scores = Follower(scores_topic(topic), last(SCORES_BACK))
        self._events = Follower(topic, last(SCORES_BACK))
        self._alerts = Follower(alerts_topic(topic), last(ALERTS_BACK))
        self._letters = Follower(dead_letters_topic(topic), last(LETTERS_BACK))
        self._feedback = Follower(feedback_topic(topic), since(now_ms - LONGEST_MUTE_MS))

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def close(self) -> None:
        """Stop reading, and wait for the end of it."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        outage = Outage(self._give_up_after_s, self._stop.wait)
        try:
            while not self._stop.is_set():
                try:
                    self._follow(outage)
                except LogUnavailable as error:
                    self._show(str(error))
                    outage.wait(error)
        except Exception as error:
            self.error = error
        self._on_end()

    def _follow(self, outage: Outage) -> None:
        """Read and show, look after look, until stopped or the log is out of reach; it is opened anew then."""
        log = self._open()
        try:
            while not self._stop.is_set():
                began_s = time.monotonic()
                more = self._look(log)
                outage.over()
                self._show(None)
                if not more:
                    self._stop.wait(max(0.0, TICK_S - (time.monotonic() - began_s)))
        finally:
            log.close()

    def _look(self, log: EventLog) -> bool:
        """Take in what is new, and return whether there is more."""
        feedback = self._feedback.read(log, AT_ONCE)
        if self._may_write and self._feedback.info is None and self._events.info is not None:
            log.create_topic(self._feedback.topic, self._events.info.partitions)
        scores, events = unpacked(self._scores.read(log, AT_ONCE)), self._events.read(log, AT_ONCE)
        alerts, letters = self._alerts.read(log, AT_ONCE), self._letters.read(log, AT_ONCE)
        self._lag.take_scores(scores)
        self._lag.take_letters(letters)
        with self._lock:
            self._board.take_feedback(feedback)
            self._board.take_events(events)
            self._board.take_scores(scores)
            self._board.take_alerts(alerts)
            self._board.take_letters(letters)
        followers = (self._scores, self._events, self._alerts, self._letters, self._feedback)
        return any(follower.behind() for follower in followers)

    def _show(self, trouble: str | None) -> None:
        """Publish what has changed, not too often; ``trouble`` says why the log cannot be read."""
        now_s = time.monotonic()
        if now_s - self._published_s < TICK_S - 0.05:
            return
        with self._lock:
            state = self._board.state(time.time_ns() // 1_000_000)
        info, all_told = self._events.info, self._lag.all_told
        state["head"] |= {
            "all_told": all_told,
            "lag": self._lag.events(info.end_offsets) if info and all_told else None,
            "behind": self._scores.behind(),
            "skipped": self._scores.skipped,
            "scores_there": self._scores.info is not None,
            "trouble": trouble,
        }
        state["head"]["stands"] = self._standstill.stands(state["head"], now_s)
        changed = None if self._state is None else change(self._state, state)
        if changed is not None and not any(changed.values()) and now_s - self._published_s < CALM_S:
            return
        self._number += 1
        self._state, self._published_s = state, now_s
        change_bytes = None if changed is None else msgspec.json.encode(changed)
        self._publish(Frame(self._number, change_bytes, partial(msgspec.json.encode, state)))
