"""Processes come and go under load, and while states are being restored: every record is scored once."""

from __future__ import annotations

import signal

from tests.end_to_end import kafka_runs
from tests.end_to_end.kafka_runs import Fleet, Running, Stream, assert_exactly_once, load

LONG_MS = 30_000  # a session time-out that no test waits for


def settle(fleet: Fleet, *processes: Running) -> None:
    """Wait until each of these has partitions, and together they have all."""

    def settled() -> bool:
        owned = [process.partitions for process in processes]
        return all(owned) and sum(map(len, owned)) == fleet.stream.partitions

    fleet.wait_until(settled)


def test_from_one_to_three_to_two_processes_under_load(stream: Stream, fleet: Fleet) -> None:
    """Two join; one leaves on SIGTERM, and the others have its partitions long before a session time-out."""
    records, config = kafka_runs.feed(400), {"session_timeout_ms": LONG_MS}
    with load(stream, records, per_s=200):
        one = fleet.start("one", config=config)
        fleet.wait_for(100)
        two, three = (fleet.start(name, config=config) for name in ("two", "three"))
        settle(fleet, one, two, three)
        fleet.wait_for(fleet.done + 100)
        left = one.partitions
        one.send(signal.SIGTERM)
        assert one.wait() == 0
        before = fleet.done_in(left)
        handed_over_s = fleet.wait_until(lambda: fleet.done_in(left) > before)
        assert handed_over_s < LONG_MS / 1000 / 3
        settle(fleet, two, three)
        assert fleet.done < len(records), "there was no load any more"
    fleet.wait_for(len(records))
    fleet.stop_all()
    assert_exactly_once(stream)


def test_processes_come_go_and_die_during_a_restore(stream: Stream, fleet: Fleet) -> None:
    """The states take seconds to read; meanwhile one joins, the one that reads is killed, and starts again."""
    records = kafka_runs.feed(150)
    stream.append(records[:1000])
    stream.score_here(poll_records=20)
    restored = stream.read(stream.changelog)
    with load(stream, records[1000:], per_s=200):
        slow = {"restore_wait_s": 4.0 / len(restored)}
        one = fleet.start("one", **slow)
        fleet.wait_until(lambda: one.partitions == set(range(stream.partitions)))
        two = fleet.start("two", **slow)
        fleet.wait_until(lambda: bool(two.partitions))
        assert "restored" not in one.output
        one.kill()
        one = fleet.start("one", **slow)
        three = fleet.start("three")
        fleet.wait_until(lambda: bool(three.partitions))
        two.send(signal.SIGTERM)
        assert two.wait() == 0
        settle(fleet, one, three)
    fleet.wait_for(len(records))
    fleet.stop_all()
    assert_exactly_once(stream)
