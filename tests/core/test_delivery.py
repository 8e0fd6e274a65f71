"""The schedule of deliveries, in simulated time."""

from __future__ import annotations

import doctest
import random
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlstm.core import delivery as module
from streamlstm.core.delivery import (
    FAILURES_TO_PAUSE,
    LONGEST_RETRY_AFTER_S,
    LONGEST_WAIT_S,
    Breaker,
    Delivery,
    Outcome,
    Policy,
    Schedule,
)
from streamlstm.core.log import Record

DELIVERED, FAILED, REFUSED = Outcome("delivered"), Outcome("failed", "500"), Outcome("refused", "400")


def make_record(offset: int, key: str = "a", partition: int = 0) -> Record:
    """Return a record; its value does not matter here."""
    return Record("events.alerts", partition, offset, 0, key.encode(), b"")


def make_schedule(
    *records: Record, window: int = 256, connections: int = 8, tries: int = 3, rng: Callable[[], float] = lambda: 0.5
) -> Schedule:
    """Return a schedule that took these records, with a receiver known to be up."""
    schedule = Schedule(Policy(window, connections, tries, dead_after_s=86_400.0), rng)
    for _ in range(connections):
        schedule.breaker.answered()
    for record in records:
        schedule.take(record)
    return schedule


def offsets(deliveries: list[Delivery]) -> list[int]:
    """Return the offsets of deliveries."""
    return [delivery.record.offset for delivery in deliveries]


def try_all(schedule: Schedule, outcome: Outcome, now_s: float) -> list[int]:
    """Send what is due, settle it all with one outcome, and return the offsets."""
    due = schedule.due(now_s)
    for delivery in due:
        schedule.settle(delivery, outcome, now_s)
    return offsets(due)


def test_due_one_key_has_one_record_under_way() -> None:
    """The next record of a key waits for the one before it."""
    schedule = make_schedule(make_record(0), make_record(1))

    (first,) = schedule.due(0.0)
    assert schedule.due(0.0) == []
    schedule.settle(first, DELIVERED, 1.0)
    assert offsets(schedule.due(1.0)) == [1]


def test_due_many_keys_are_sent_side_by_side_up_to_the_connections() -> None:
    """Keys do not wait for each other; the same key in another partition is another key."""
    schedule = make_schedule(*(make_record(i, "abcd"[i]) for i in range(4)), make_record(0, "a", 1), connections=4)

    assert len(schedule.due(0.0)) == 4
    assert schedule.due(0.0) == []


def test_settle_failed_record_holds_up_its_own_key_only() -> None:
    """The record behind a failed one waits, another key does not."""
    schedule = make_schedule(make_record(0, "a"), make_record(1, "a"), make_record(2, "b"))

    first, other = schedule.due(0.0)
    assert schedule.settle(first, FAILED, 0.0) == "waiting"
    assert schedule.settle(other, DELIVERED, 0.0) == "delivered"
    assert schedule.due(0.4) == []
    assert offsets(schedule.due(0.5)) == [0]


def test_settle_waits_grow_with_full_jitter() -> None:
    """The longest wait doubles up to a minute; the real one is anything down to nothing."""
    random_numbers = random.Random(1)
    schedule = make_schedule(make_record(0), tries=10_000, rng=random_numbers.random)
    schedule.breaker = Unbreakable(8, random.random)
    now_s, waits = 0.0, []
    for _ in range(400):
        (tried,) = schedule.due(now_s)
        schedule.settle(tried, FAILED, now_s)
        queue = schedule._queues[0, b"a"]
        waits.append(queue.not_before_s - now_s)
        now_s = queue.not_before_s

    limits = [min(60.0, 2.0**i) for i in range(400)]
    assert all(0.0 <= wait <= limit for wait, limit in zip(waits, limits, strict=True))
    settled = waits[10:]
    assert min(settled) < 3.0
    assert max(settled) > 57.0
    assert 25.0 < sum(settled) / len(settled) < 35.0


class Unbreakable(Breaker):
    """A breaker that never pauses."""

    def failed(self, now_s: float, retry_after_s: float | None) -> bool:
        """Hold every failure against the record."""
        return False


def test_settle_last_try_gives_the_record_up_with_its_reason() -> None:
    """After so many tries it is dead, and the next one of its key goes."""
    schedule = make_schedule(make_record(0), make_record(1), tries=3)

    for now_s in (0.0, 10.0, 20.0):
        assert try_all(schedule, FAILED, now_s) == [0]
    progress = schedule.progress()
    assert [(dead.record.offset, dead.reason, dead.detail) for dead in progress.dead_letters] == [(0, "tries", "500")]
    assert progress.offsets == {0: (0, 1)}
    assert offsets(schedule.due(20.0)) == [1]


def test_settle_key_that_always_fails_has_one_try_per_record_until_one_succeeds() -> None:
    """A key whose records all fail is soon out of the way; once one is taken, all is as before."""
    schedule = make_schedule(*(make_record(i) for i in range(5)), tries=3)
    schedule.breaker = Unbreakable(8, lambda: 0.5)
    sent = []
    for now_s in range(0, 100, 10):
        due = schedule.due(float(now_s))
        sent += offsets(due)
        for delivery in due:
            schedule.settle(delivery, DELIVERED if delivery.record.offset == 2 else FAILED, float(now_s))

    assert sent == [0, 0, 0, 1, 2, 3, 3, 3, 4]


def test_settle_refused_record_is_dead_at_once() -> None:
    """There is no second try for what will never be taken."""
    schedule = make_schedule(make_record(0))

    (tried,) = schedule.due(0.0)
    assert schedule.settle(tried, REFUSED, 0.0) == "dead"
    assert [dead.reason for dead in schedule.progress().dead_letters] == ["refused"]


def test_settle_record_too_old_is_dead_even_with_the_receiver_down() -> None:
    """An outage uses up no tries, but not for ever."""
    schedule = make_schedule(make_record(0), tries=3)
    now_s, verdict, sent = 0.0, "waiting", 0
    while verdict == "waiting" and now_s < 200_000.0:
        for delivery in schedule.due(now_s):
            verdict = schedule.settle(delivery, FAILED if sent < 2 else Outcome("failed", "429", 60.0), now_s)
            sent += 1
        now_s += 30.0

    assert verdict == "dead"
    assert 86_400.0 <= now_s < 86_700.0
    assert [dead.reason for dead in schedule.progress().dead_letters] == ["too_old"]


def test_breaker_after_failures_in_a_row_sends_one_probe_at_a_time() -> None:
    """While the receiver is down, hundreds of waiting keys make one request per pause, each pause longer."""
    schedule = make_schedule(*(make_record(i, f"key-{i}") for i in range(200)), window=300)
    assert len(try_all(schedule, FAILED, 0.0)) == 8
    assert schedule.breaker.down

    probes, now_s = [], 0.0
    while now_s < 3600.0:
        due = schedule.due(now_s)
        assert len(due) <= 1
        assert schedule.due(now_s) == []
        for delivery in due:
            probes.append(now_s)
            schedule.settle(delivery, FAILED, now_s)
        now_s += 0.1

    gaps = [later - earlier for earlier, later in pairwise(probes)]
    assert min(gaps) > 1.0
    assert all(LONGEST_WAIT_S / 2 <= gap <= LONGEST_WAIT_S + 0.2 for gap in gaps[6:])
    assert 60 <= len(probes) <= 130
    assert schedule.progress().dead_letters == []


def test_breaker_probes_take_turns_so_that_a_poison_record_does_not_keep_it_open() -> None:
    """If only one key fails, the next probe is another key's, and the flow goes on."""
    schedule = make_schedule(make_record(0, "poison"), tries=1000)
    now_s = 0.0
    while not schedule.breaker.down:
        try_all(schedule, FAILED, now_s)
        now_s += 60.0
    schedule.take(make_record(1, "good"))

    (probe,) = schedule.due(now_s)
    assert probe.record.key == b"good"
    schedule.settle(probe, DELIVERED, now_s)
    assert not schedule.breaker.down


def test_breaker_receiver_back_lets_the_flow_double_with_each_round() -> None:
    """A receiver that has just come back is not run over."""
    schedule = make_schedule(*(make_record(i, f"key-{i}") for i in range(100)), connections=8)
    try_all(schedule, FAILED, 0.0)

    rounds = [len(try_all(schedule, DELIVERED, 100.0 + i)) for i in range(6)]

    assert rounds == [1, 2, 4, 8, 8, 8]


def test_breaker_failures_with_successes_between_do_not_open_it() -> None:
    """Only failures in a row speak of the receiver."""
    breaker = Breaker(8, lambda: 0.5)
    for _ in range(10):
        for _ in range(FAILURES_TO_PAUSE - 1):
            assert not breaker.failed(0.0, None)
        breaker.answered()

    assert not breaker.down
    assert breaker.allowed(0.0) == 8


@pytest.mark.parametrize(("asked_s", "waited_s"), [(30.0, 30.0), (1e9, LONGEST_RETRY_AFTER_S)])
def test_breaker_retry_after_holds_every_key_and_is_capped(asked_s: float, waited_s: float) -> None:
    """It is the receiver that asks, so that no key is sent before; and it is not held against the record."""
    breaker = Breaker(8, lambda: 0.5)
    breaker.answered()

    assert breaker.failed(100.0, asked_s)
    assert breaker.allowed(100.0 + waited_s - 0.01) == 0
    assert breaker.allowed(100.0 + waited_s) == 1


def test_breaker_retry_after_of_nothing_does_not_make_it_hurry() -> None:
    """A receiver that fails with ``Retry-After: 0`` is still taken for down after some failures."""
    breaker = Breaker(8, lambda: 0.5)
    for _ in range(FAILURES_TO_PAUSE):
        breaker.failed(0.0, 0.0)

    assert breaker.allowed(0.5) == 0


def test_breaker_late_failure_does_not_lengthen_the_pause() -> None:
    """Requests that were under way when the pause began fail too, and say nothing new."""
    breaker = Breaker(8, lambda: 0.5)
    for _ in range(FAILURES_TO_PAUSE):
        breaker.failed(0.0, None)
    until_s = breaker.paused_until_s
    for _ in range(3):
        assert breaker.failed(0.1, None)

    assert breaker.paused_until_s == until_s


def test_progress_out_of_order_completion_moves_to_the_low_watermark() -> None:
    """Nothing behind the first unfinished record is committed."""
    schedule = make_schedule(*(make_record(i, "abc"[i]) for i in range(3)))
    a, b, c = schedule.due(0.0)

    schedule.settle(c, REFUSED, 0.0)
    assert schedule.progress() == ({}, [])
    schedule.settle(a, DELIVERED, 0.0)
    assert schedule.progress() == ({0: (0, 1)}, [])
    schedule.committed({0: (0, 1)}.items())
    schedule.settle(b, DELIVERED, 0.0)
    progress = schedule.progress()
    assert progress.offsets == {0: (1, 3)}
    assert [dead.record.offset for dead in progress.dead_letters] == [2], "told when its offset is"
    schedule.committed(progress.offsets.items())
    assert schedule.idle


def test_progress_after_a_gap_in_the_offsets_goes_on_from_what_was_committed() -> None:
    """A log may have offsets without a record; the first offset of a commit is what is committed now."""
    schedule = make_schedule(make_record(5))
    try_all(schedule, DELIVERED, 0.0)
    schedule.committed(schedule.progress().offsets.items())
    schedule.take(make_record(9))
    try_all(schedule, DELIVERED, 0.0)

    assert schedule.progress().offsets == {0: (6, 10)}


def test_take_record_known_before_is_left_out() -> None:
    """After a rewind the log returns what is under way once more."""
    schedule = make_schedule(make_record(0))

    assert not schedule.take(make_record(0))
    assert schedule.take(make_record(1))
    assert schedule.waiting == 2


def test_take_skipped_record_is_done() -> None:
    """It is not sent, and committed in its turn."""
    schedule = make_schedule(make_record(0))
    schedule.take(make_record(1), skip=True)

    assert try_all(schedule, DELIVERED, 0.0) == [0]
    assert schedule.progress().offsets == {0: (0, 2)}


def test_room_delivered_behind_a_stuck_record_is_still_counted() -> None:
    """The window bounds what may be sent again after a crash, so that what is done counts until committed."""
    schedule = make_schedule(*(make_record(i, "abcd"[i]) for i in range(4)), window=4)
    assert schedule.room() == 0
    stuck, *others = schedule.due(0.0)
    for delivery in others:
        schedule.settle(delivery, DELIVERED, 0.0)

    assert schedule.room() == 0
    schedule.settle(stuck, DELIVERED, 0.0)
    schedule.committed(schedule.progress().offsets.items())
    assert schedule.room() == 4


class Chaos:
    """Feeds a schedule in two partitions, settles and commits at random, and checks what must hold at each moment."""

    def __init__(self, keys: list[str], window: int, commit_share: float, rng: random.Random) -> None:
        self.schedule = Schedule(Policy(window, 3, 3, 1000.0), rng.random)
        self.rng, self.commit_share = rng, commit_share
        self.records = [make_record(i, key, i % 2) for i, key in enumerate(keys)]
        self.coming = {p: [record for record in self.records if record.partition == p] for p in (0, 1)}
        self.under_way: list[Delivery] = []
        self.done: list[Record] = []
        self.dead: list[Record] = []
        self.committed: dict[int, int] = {}

    def step(self, now_s: float) -> None:
        """Take, start, settle and commit a little."""
        for records in self.coming.values():
            if records and self.schedule.room() > 0:
                self.schedule.take(records.pop(0))
        self.under_way += self.schedule.due(now_s)
        assert len({(d.record.partition, d.record.key) for d in self.under_way}) == len(self.under_way) <= 3
        if self.under_way and self.rng.random() < 0.7:
            delivery = self.under_way.pop(self.rng.randrange(len(self.under_way)))
            outcomes = [DELIVERED, DELIVERED, FAILED, REFUSED, Outcome("failed", "", self.rng.random() * 5)]
            if self.schedule.settle(delivery, self.rng.choice(outcomes), now_s) != "waiting":
                self.done.append(delivery.record)
        if self.rng.random() < self.commit_share:
            self.commit()

    def commit(self) -> None:
        """Commit what may be, and check that everything before it is done."""
        progress = self.schedule.progress()
        self.dead += [letter.record for letter in progress.dead_letters]
        for partition, (first, following) in progress.offsets.items():
            before = {r.offset for r in self.records if r.partition == partition and r.offset < following}
            assert before <= {r.offset for r in self.done if r.partition == partition}
            assert self.committed.get(partition, first) == first
            self.committed[partition] = following
        self.schedule.committed(progress.offsets.items())


@given(
    keys=st.lists(st.sampled_from("abcd"), max_size=30),
    seed=st.integers(0, 2**32),
    commit_share=st.floats(0.05, 1.0),
    window=st.integers(1, 8),
)
def test_schedule_any_outcomes_keep_order_and_lose_nothing(
    keys: list[str], seed: int, commit_share: float, window: int
) -> None:
    """Whatever happens when: order per key, one under way per key, no gap in what is committed, and an end."""
    rng = random.Random(seed)
    chaos, now_s = Chaos(keys, window, commit_share, rng), 0.0
    while len(chaos.done) < len(keys) and now_s < 10_000.0:
        now_s += rng.random()
        chaos.step(now_s)
    chaos.commit()

    assert chaos.schedule.idle
    assert sorted(record.offset for record in chaos.done) == list(range(len(keys)))
    assert len(chaos.dead) == len(set(chaos.dead))
    for key in {(record.partition, record.key) for record in chaos.done}:
        of_key = [r.offset for r in chaos.done if (r.partition, r.key) == key]
        assert of_key == sorted(of_key)


def test_examples_in_the_docstrings_are_true() -> None:
    """Examples are run."""
    assert doctest.testmod(module).failed == 0
