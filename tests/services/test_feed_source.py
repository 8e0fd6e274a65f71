"""From a file's events to a feed's: times, rounds, copies, and the bytes that say so."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import msgspec
import pytest

from streamlstm.core.event import EventDecoder
from streamlstm.core.schema import StreamSchema
from streamlstm.errors import SchemaError
from streamlstm.services.feed_source import Timed, encoded, looped, played, timed
from tests.builders import SCHEMA, START_MS, make_record

BAD = b"{no json"


def event_at(second: float, sensor: str = "a") -> bytes:
    """Return an event at a time since the first one."""
    return make_record(sensor=sensor, time=START_MS + round(second * 1000)).value


def reader_of(values: list[bytes]) -> Callable[[], Iterator[Timed]]:
    """Return what starts a file with these events anew."""
    return lambda: timed([(values, 1.0)], SCHEMA)


class Reader:
    """A file that counts how often it was started and how many events were read."""

    def __init__(self, values: list[bytes]) -> None:
        self._values = values
        self.started = 0
        self.events = 0

    def __call__(self) -> Iterator[Timed]:
        """Start the file anew."""
        self.started += 1
        for record in timed([(self._values, 1.0)], SCHEMA):
            self.events += 1
            yield record


def seconds_of(records: Iterator[Timed]) -> list[float]:
    """Return the events' times after being encoded, in seconds since the start of the file, read from their bytes."""
    times = [msgspec.json.decode(record.value)["time"] for record in encoded(records, SCHEMA)]
    return [(time - START_MS) / 1000 for time in times]


def test_timed_events_are_due_at_their_time_since_the_first() -> None:
    """Delivery follows event time; key and time are those that a scorer will decode."""
    records = list(timed([([event_at(0), event_at(2.5, "b")], 1.0)], SCHEMA))
    assert [(record.due_ms, record.key, record.time_ms) for record in records] == [
        (0.0, b"a", START_MS),
        (2500.0, b"b", START_MS + 2500),
    ]


def test_timed_bad_events_are_due_with_the_one_before() -> None:
    """What cannot be decoded keeps its place in the file; at its start, it is due at once."""
    values = [BAD, event_at(0), event_at(3), BAD]
    records = list(timed([(values, 1.0)], SCHEMA))
    assert [record.due_ms for record in records] == [0.0, 0.0, 3000.0, 3000.0]
    assert [record.time_ms is None for record in records] == [True, False, False, True]
    assert [record.value for record in records] == values


def test_timed_events_before_the_first_are_due_at_once() -> None:
    """A file that is not sorted loses nothing: such an event is late, and that is for the scorer to say."""
    values = [event_at(5), event_at(3), event_at(6), event_at(0)]
    assert [record.due_ms for record in timed([(values, 1.0)], SCHEMA)] == [0.0, 0.0, 1000.0, 0.0]
    for loop, phase_ms in ((1, 0), (2, 0), (1, 500)):
        sent = played(reader_of(values), loop=loop, copies=1, phase_ms=phase_ms)
        assert sorted(record.value for record in sent) == sorted(loop * values)


def test_timed_place_goes_from_chunk_to_chunk_in_even_steps() -> None:
    """Progress is known to the event, though the file's reader only knows it to the chunk."""
    chunks = [([event_at(0)], 0.2), ([], 0.2), ([event_at(1), event_at(2), event_at(3), event_at(4)], 1.0)]
    places = [record.place for record in timed(chunks, SCHEMA)]
    assert places == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


def test_looped_once_is_the_file() -> None:
    """One round changes nothing, late events and all."""
    values = [event_at(0), BAD, event_at(5), event_at(2)]
    records = list(looped(reader_of(values), 1))
    assert records == list(reader_of(values)())


def test_looped_rounds_go_on_after_one_typical_gap() -> None:
    """Between rounds lies the median gap of a key, though keys are interleaved and one gap is long."""
    values = [event_at(second, sensor) for second in (0, 10, 20, 30, 90) for sensor in "ab"]
    seconds = seconds_of(looped(reader_of(values), 3))
    assert seconds[::2] == seconds[1::2]
    assert seconds[::2] == [0, 10, 20, 30, 90, 100, 110, 120, 130, 190, 200, 210, 220, 230, 290]


def test_looped_keys_that_never_repeat_are_spaced_as_all_events_are() -> None:
    """A file in which each key comes once still has a typical gap."""
    values = [event_at(second, f"k{second}") for second in (0, 1, 3, 6)]
    assert seconds_of(looped(reader_of(values), 2)) == [0, 1, 3, 6, 8, 9, 11, 14]


@pytest.mark.parametrize("values", [[event_at(0)], [event_at(0), event_at(0, "b")]])
def test_looped_file_that_lasts_no_time_moves_on_by_a_second(values: list[bytes]) -> None:
    """Rounds never share a time: that would be duplicates."""
    assert sorted(set(seconds_of(looped(reader_of(values), 3)))) == [0, 1, 2]


def test_looped_without_end_goes_on() -> None:
    """Zero rounds are endless, and each round reads the file anew."""
    seconds = seconds_of(itertools.islice(looped(reader_of([event_at(0), event_at(1)]), 0), 1001))
    assert seconds == list(range(1001))


def test_looped_empty_file_ends() -> None:
    """Nothing, played for ever, is over at once."""
    assert list(looped(reader_of([]), 0)) == []


def test_looped_place_counts_rounds() -> None:
    """The place says which round, and how far into it."""
    places = [record.place for record in looped(reader_of([event_at(0), event_at(1)]), 2)]
    assert places == [0.5, 1.0, 1.5, 2.0]


@pytest.mark.parametrize("phase_s", [1, 2, 3, 7, 11, 1003])
def test_looped_with_phase_starts_within_the_file_and_wraps(phase_s: int) -> None:
    """A copy plays each event once a round, in the file's cyclic order, at times without a jump."""
    values = [make_record(time=START_MS + 1000 * second, flow=float(second)).value for second in range(4)]
    records = list(encoded(looped(reader_of(values), 2, phase_s * 1000), SCHEMA))
    events = [msgspec.json.decode(record.value) for record in records]
    assert [(event["time"] - START_MS) / 1000 for event in events] == list(range(8))
    assert [event["flow"] for event in events] == [(phase_s + i) % 4 for i in range(8)]
    assert [record.due_ms for record in records] == [1000 * i for i in range(8)]


def test_played_without_phase_sends_copies_in_step_from_one_reading() -> None:
    """Copies of an event stand beside it, under keys of their own, and the file is read once."""
    read = Reader([event_at(0), event_at(1, "b")])
    records = list(encoded(played(read, loop=1, copies=3, phase_ms=0), SCHEMA))
    assert [record.key for record in records] == [b"a", b"a#2", b"a#3", b"b", b"b#2", b"b#3"]
    assert [record.due_ms for record in records] == [0, 0, 0, 1000, 1000, 1000]
    assert read.started == 1


def test_played_with_phase_sends_copies_in_the_order_in_which_they_are_due() -> None:
    """Each copy is elsewhere in the file at any moment, and together they are one feed."""
    read = Reader(
        [make_record(time=START_MS + 1000 * second, flow=float(second)).value for second in range(3)]
    )  # fmt: skip
    records = list(encoded(played(read, loop=1, copies=3, phase_ms=1000), SCHEMA))
    sent = [(event["sensor"], event["flow"]) for event in (msgspec.json.decode(record.value) for record in records)]
    assert sent == [
        ("a", 0.0), ("a#2", 1.0), ("a#3", 2.0),
        ("a", 1.0), ("a#2", 2.0), ("a#3", 0.0),
        ("a", 2.0), ("a#2", 0.0), ("a#3", 1.0),
    ]  # fmt: skip
    assert [record.due_ms for record in records] == [0] * 3 + [1000] * 3 + [2000] * 3


def test_played_late_events_stay_where_the_file_has_them() -> None:
    """A late event is due with the one before it, and keeps its time."""
    values = [event_at(0), event_at(10), event_at(3), event_at(11)]
    records = list(played(reader_of(values), loop=1, copies=1, phase_ms=0))
    assert [record.due_ms for record in records] == [0, 10_000, 10_000, 11_000]
    assert [record.value for record in records] == values


def test_played_reads_ahead_by_one_event_at_most() -> None:
    """No stage holds the file: what was sent is what was read."""
    read = Reader([event_at(second) for second in range(100)])
    for sent, _ in enumerate(encoded(played(read, loop=2, copies=1, phase_ms=0), SCHEMA), start=1):
        assert read.events <= sent + 1


def test_played_bad_events_are_copied_as_they_are() -> None:
    """A copy's device sends its garbage too."""
    records = list(encoded(played(reader_of([event_at(0), BAD]), loop=2, copies=2, phase_ms=0), SCHEMA))
    assert [record.value for record in records if record.time_ms is None] == [BAD] * 4


def test_encoded_leaves_events_that_nothing_happened_to() -> None:
    """Without rounds, copies or a new start, the bytes are the file's own, spaces and all."""
    value = b'{ "sensor":"a" , "time":1600000000000,"flow":1.50,"pressure":2,"note":"x"}'
    assert [record.value for record in encoded(reader_of([value])(), SCHEMA)] == [value]


def test_encoded_changes_time_and_key_and_no_other_field() -> None:
    """Digits, unknown fields and the order of fields stay as they were sent."""
    value = b'{"note": [1.50, null], "time": 1600000000000, "sensor": "a \\u0041", "flow": 1.50, "pressure": 2e0}'
    (record,) = encoded(iter([Timed(0.0, value, b"a A", START_MS, shift_ms=5, copy=2)]), SCHEMA)
    assert record.value == b'{"note":[1.50, null],"time":1600000000005,"sensor":"a A#2","flow":1.50,"pressure":2e0}'
    assert (record.key, record.time_ms) == (b"a A#2", START_MS + 5)


@pytest.mark.parametrize(
    ("unit", "time", "moved"),
    [
        ("ms", "1600000000000", "1600000001500"),
        ("ms", "1600000000000.25", "1600000001500.25"),
        ("us", "1600000000000007", "1600000001500007"),
        ("s", "1600000000.25", "1600000001.75"),
        ("s", "1600000000", "1600000001.5"),
        ("iso8601", '"2020-09-13T12:26:40"', '"2020-09-13T12:26:41.500000"'),
        ("iso8601", '"2020-09-13 14:26:40.000007+02:00"', '"2020-09-13T14:26:41.500007+02:00"'),
        ("iso8601", '"2020-09-13"', '"2020-09-13T00:00:01.500000"'),
    ],
)
def test_encoded_time_keeps_its_unit_precision_and_zone(unit: str, time: str, moved: str) -> None:
    """A moved time is written as the file writes it, and a scorer reads it as later by just the shift."""
    schema = StreamSchema.from_toml(f'timestamp_unit = "{unit}"\n[features.flow]')
    (before,) = timed([([f'{{"time":{time},"flow":1}}'.encode()], 1.0)], schema)
    (after,) = encoded(iter([before._replace(shift_ms=1500)]), schema)
    assert after.value == f'{{"time":{moved},"flow":1}}'.encode()
    batch, _ = EventDecoder(schema).decode([make_record(after.value)])
    assert batch.timestamp_ms.tolist() == [after.time_ms] == [(before.time_ms or 0) + 1500]


def test_encoded_time_in_whole_seconds_stays_whole() -> None:
    """A feed in seconds does not become one of fractions where none are needed."""
    schema = StreamSchema.from_toml('timestamp_unit = "s"\n[features.flow]')
    (before,) = timed([([b'{"time":1600000000,"flow":1}'], 1.0)], schema)
    (after,) = encoded(iter([before._replace(shift_ms=3_600_000)]), schema)
    assert after.value == b'{"time":1600003600,"flow":1}'


def test_encoded_copy_of_a_key_that_is_a_number_is_text() -> None:
    """7#2 is no number; the decoder takes keys of both kinds."""
    records = timed([([make_record(sensor=7).value], 1.0)], SCHEMA)
    (record,) = encoded((record._replace(copy=2) for record in records), SCHEMA)
    assert msgspec.json.decode(record.value)["sensor"] == "7#2"
    assert record.key == b"7#2"


def test_encoded_copy_without_a_key_field_is_told_by_its_record() -> None:
    """The record's key is the event's where the event has none, so only that one changes."""
    schema = StreamSchema.from_toml('timestamp_unit = "ms"\n[features.flow]')
    value = b'{"time": 1600000000000, "flow": 1}'
    records = [record._replace(copy=2) for record in timed([([value], 1.0)], schema)]
    assert [(record.key, record.value) for record in encoded(iter(records), schema)] == [(b"all#2", value)]


def test_encoded_restamped_feed_starts_now_and_keeps_its_gaps() -> None:
    """The first event that has a time gets the clock's, bad ones before it notwithstanding."""
    values = [BAD, event_at(0), event_at(2), event_at(1), BAD]
    records = list(encoded(reader_of(values)(), SCHEMA, lambda: START_MS + 86_400_000))
    assert [record.time_ms for record in records] == [
        None, START_MS + 86_400_000, START_MS + 86_402_000, START_MS + 86_401_000, None,
    ]  # fmt: skip
    assert [record.value for record in records if record.time_ms is None] == [BAD, BAD]


def test_encoded_times_beyond_the_years_that_events_may_have_end_the_feed() -> None:
    """A time far off makes rounds of centuries; the message says where to look."""
    values = [event_at(0), make_record(time=32_000_000_000_000).value]
    with pytest.raises(SchemaError, match=r"out of the years 1971 to 3000; is a time in the file far off\?"):
        list(encoded(looped(reader_of(values), 3), SCHEMA))
