"""Deliver records in order per key, at least once: what to send now, and what may be committed.

No clock and no network here: every call takes the time, in seconds of a clock that never goes back,
and the caller sends and reports the outcome.

*Order.* Of each key one record is under way at a time, and the next waits until that one is delivered
or dead. Keys do not wait for each other; the key tried longest ago goes first.

*Retry.* A failed record waits between nothing and twice the time of before (full jitter), and is dead
after so many tries. The records of its key behind it then have one try each until one succeeds: a key
whose records always fail is soon out of the way.

*Circuit breaker.* After some failures in a row, of any keys, or when the receiver asks for it
(``Retry-After``), nothing is sent for a while; then one record, a probe, and the next only when it was
answered. Every answer lets one more be under way, so that the flow doubles with each round trip and a
receiver that comes back is not run over. A failure while the receiver is taken for down is not held
against the record: an outage of hours uses up no tries.

*Commit.* A partition's offset moves up to the first record that is neither delivered nor dead. The
records taken beyond it, whether done or not, are at most ``window``: so many may be sent again after a crash.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Literal, NamedTuple

from streamlstm.core.log import Record

FIRST_WAIT_S = 1.0  # longest wait after the first failure; doubled with each further one
LONGEST_WAIT_S = 60.0
LONGEST_RETRY_AFTER_S = 900.0  # a receiver may ask for a quarter of an hour at most: these are alerts
FAILURES_TO_PAUSE = 5  # in a row, of any keys

Key = tuple[int, bytes | None]
Verdict = Literal["delivered", "waiting", "dead", "dropped"]  # dropped: another alerter sends it


class Outcome(NamedTuple):
    """What became of one try.

    ``failed`` may succeed later, ``refused`` never will. ``retry_after_s`` is what the receiver asked for.
    """

    result: Literal["delivered", "failed", "refused"]
    detail: str = ""
    retry_after_s: float | None = None


@dataclass(frozen=True)
class Policy:
    """``window``: records taken and not committed, at most (a poll may bring one per partition more).
    ``connections``: under way at once, at most. ``tries``: failures of a record, with the receiver up, after
    which it is dead. ``dead_after_s``: it is dead when a try fails this long after the first one, whoever is
    to blame: also a record that fails alone, with no other to show that the receiver is up."""

    window: int = 256
    connections: int = 8
    tries: int = 12
    dead_after_s: float = 86_400.0


@dataclass
class Delivery:
    """A record on its way; ``failures`` are those held against it."""

    record: Record
    failures: int = 0
    first_try_s: float | None = None


class DeadLetter(NamedTuple):
    """A record that was given up, and why."""

    record: Record
    reason: Literal["refused", "tries", "too_old"]
    detail: str


class Progress(NamedTuple):
    """What may be committed: per partition (first, next offset), and the dead letters before it."""

    offsets: dict[int, tuple[int, int]]
    dead_letters: list[DeadLetter]


@dataclass
class _Queue:
    """The records of one key, in order; the head is the one to send."""

    waiting: deque[Delivery] = field(default_factory=deque)
    under_way: bool = False
    failing: bool = False  # the record before was given up after its tries
    tried_s: float = -math.inf
    not_before_s: float = -math.inf


@dataclass
class _Partition:
    """Where a partition stands: ``taken`` are the offsets not committed yet, ``done`` those that may be."""

    first: int
    following: int
    taken: deque[int] = field(default_factory=deque)
    done: dict[int, DeadLetter | None] = field(default_factory=dict)


class Schedule:
    """The state of all deliveries; ``random`` gives numbers in [0, 1)."""

    def __init__(self, policy: Policy, random: Callable[[], float]) -> None:
        self.policy = policy
        self.under_way = 0
        self.breaker = Breaker(policy.connections, random)
        self._random = random
        self._queues: dict[Key, _Queue] = {}
        self._partitions: dict[int, _Partition] = {}

    @property
    def waiting(self) -> int:
        """Records taken that are neither delivered nor dead."""
        return sum(len(queue.waiting) for queue in self._queues.values())

    @property
    def idle(self) -> bool:
        """Whether everything taken is committed."""
        return not any(partition.taken for partition in self._partitions.values())

    def room(self) -> int:
        """Return how many more records may be taken now."""
        return self.policy.window - sum(len(partition.taken) for partition in self._partitions.values())

    def take(self, record: Record, *, skip: bool = False) -> bool:
        """Take the next record of its partition; one taken before (after a rewind) is left out.

        With ``skip`` it counts as done without being sent. Returns whether the record was new.
        """
        known = self._partitions.setdefault(record.partition, _Partition(record.offset, record.offset))
        if record.offset < known.following:
            return False
        known.taken.append(record.offset)
        known.following = record.offset + 1
        if skip:
            known.done[record.offset] = None
        else:
            queue = self._queues.setdefault((record.partition, record.key), _Queue())
            queue.waiting.append(Delivery(record))
        return True

    def drop(self, partitions: Collection[int]) -> None:
        """Forget all records of these partitions; what is under way of them counts until it is settled."""
        for key in [key for key in self._queues if key[0] in partitions]:
            del self._queues[key]
        for partition in partitions:
            self._partitions.pop(partition, None)

    def due(self, now_s: float) -> list[Delivery]:
        """Return the records to send now; each must be reported to :meth:`settle`."""
        free = self.breaker.allowed(now_s) - self.under_way
        if free <= 0:
            return []
        ready = (q for q in self._queues.values() if not q.under_way and q.not_before_s <= now_s)
        chosen = heapq.nsmallest(free, ready, key=lambda queue: queue.tried_s)
        for queue in chosen:
            queue.under_way, queue.tried_s = True, now_s
            if queue.waiting[0].first_try_s is None:
                queue.waiting[0].first_try_s = now_s
        self.under_way += len(chosen)
        return [queue.waiting[0] for queue in chosen]

    def settle(self, delivery: Delivery, outcome: Outcome, now_s: float) -> Verdict:
        """Take in the outcome of a try, and return what becomes of the record."""
        self.under_way -= 1
        queue = self._queues.get((delivery.record.partition, delivery.record.key))
        if queue is None or queue.waiting[0] is not delivery:
            return "dropped"
        queue.under_way = False
        if outcome.result != "failed":
            self.breaker.answered()
            queue.failing = queue.failing and outcome.result == "refused"
            dead = DeadLetter(delivery.record, "refused", outcome.detail) if outcome.result == "refused" else None
            self._finish(queue, delivery, dead)
            return "dead" if dead else "delivered"
        if not self.breaker.failed(now_s, outcome.retry_after_s):
            delivery.failures += 1
        queue.not_before_s = now_s + self._random() * _longest_wait_s(delivery.failures)
        if delivery.failures >= (1 if queue.failing else self.policy.tries):
            queue.failing = True
            self._finish(queue, delivery, DeadLetter(delivery.record, "tries", outcome.detail))
            return "dead"
        if now_s - (delivery.first_try_s or 0.0) >= self.policy.dead_after_s:
            self._finish(queue, delivery, DeadLetter(delivery.record, "too_old", outcome.detail))
            return "dead"
        return "waiting"

    def _finish(self, queue: _Queue, delivery: Delivery, dead: DeadLetter | None) -> None:
        record = delivery.record
        queue.waiting.popleft()
        queue.not_before_s = -math.inf
        if not queue.waiting:
            del self._queues[record.partition, record.key]
        self._partitions[record.partition].done[record.offset] = dead

    def progress(self) -> Progress:
        """Return what may be committed now; :meth:`committed` must be told once it is."""
        offsets: dict[int, tuple[int, int]] = {}
        dead_letters: list[DeadLetter] = []
        for number, partition in self._partitions.items():
            done = list(takewhile(partition.done.__contains__, partition.taken))
            if done:
                offsets[number] = (partition.first, done[-1] + 1)
                dead_letters += [dead for offset in done if (dead := partition.done[offset])]
        return Progress(offsets, dead_letters)

    def committed(self, offsets: Iterable[tuple[int, tuple[int, int]]]) -> None:
        """Forget what was committed: (partition, (first, next offset)) as given by :meth:`progress`."""
        for number, (_, following) in offsets:
            partition = self._partitions[number]
            partition.first = following
            while partition.taken and partition.taken[0] < following:
                del partition.done[partition.taken.popleft()]


class Breaker:
    """How many records may be under way to the receiver: none while it is taken for down, one as a probe.

    It starts as after an outage, with one, for a receiver that may be down already.
    """

    def __init__(self, connections: int, random: Callable[[], float]) -> None:
        self.paused_until_s = -math.inf
        self._connections = connections
        self._random = random
        self._limit = 1
        self._failures = 0  # in a row
        self._pauses = 0  # in a row

    @property
    def down(self) -> bool:
        """Whether the receiver has failed so often in a row that only probes are sent."""
        return self._pauses > 0

    def allowed(self, now_s: float) -> int:
        """Return how many records may be under way now."""
        return 0 if now_s < self.paused_until_s else self._limit

    def answered(self) -> None:
        """Note that the receiver took a record, or refused it for good."""
        self._failures = self._pauses = 0
        self._limit = min(self._limit + 1, self._connections)

    def failed(self, now_s: float, retry_after_s: float | None) -> bool:
        """Note a failed try; return whether the receiver is to blame, rather than the record.

        A pause lasts between half of, and the whole of, twice the time of the one before.
        """
        if now_s >= self.paused_until_s:  # else it was under way when the pause began
            self._failures += 1
            if self._failures >= FAILURES_TO_PAUSE:
                self._pauses += 1
                self._pause(now_s + _longest_wait_s(self._pauses) * (1 + self._random()) / 2)
        if retry_after_s is not None:
            self._pause(now_s + min(retry_after_s, LONGEST_RETRY_AFTER_S))
            return True
        return now_s < self.paused_until_s

    def _pause(self, until_s: float) -> None:
        self.paused_until_s = max(self.paused_until_s, until_s)
        self._limit = 1


def _longest_wait_s(failures: int) -> float:
    """Return the longest wait (s) after so many failures.

    >>> [_longest_wait_s(failures) for failures in (0, 1, 2, 6, 7, 5000)]
    [1.0, 1.0, 2.0, 32.0, 60.0, 60.0]
    """
    return min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(max(failures - 1, 0), 16))
