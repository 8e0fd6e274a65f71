"""Several scores in one record: the same bytes, in the same order per key, in fewer records."""

from __future__ import annotations

from itertools import groupby

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlstm.core import pack
from streamlstm.core.commit import Output
from streamlstm.core.log import Record
from streamlstm.core.pack import packed, unpacked

HEADERS = (("traceparent", b"00-1"),)


def score(number: int, key: str = "a", partition: int = 0, headers: bool = False, more: int = 0) -> Output:
    """Return a score that tells its number."""
    value = msgspec.json.encode({"key": key, "offset": number, "more": "x" * more})
    return Output(partition, key.encode(), value, HEADERS if headers else ())


def stored(outputs: list[Output]) -> list[Record]:
    """Return outputs as a log holds them."""
    return [Record("events.scores", o.partition, at, 0, o.key, o.value, o.headers) for at, o in enumerate(outputs)]


def times(scores: list[Output]) -> list[int]:
    """Return a time for each, a second after the one before."""
    return [1000 * n for n in range(len(scores))]


def packed_numbers(scores: list[Output]) -> list[list[int]]:
    """Return the numbers of each record."""
    return [numbers(record) for record in packed(scores, times(scores))]


def numbers(record: Output | Record) -> list[int]:
    """Return the numbers of a record's scores."""
    one = record if isinstance(record, Record) else stored([record])[0]
    return [msgspec.json.decode(single.value)["offset"] for single in unpacked([one])]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 1), st.booleans(), st.integers(0, 40)), max_size=60))
def test_unpacked_scores_are_the_bytes_that_were_packed(chosen: list[tuple[str, int, bool, int]]) -> None:
    """Whatever keys, partitions, headers and sizes: nothing lost, doubled or out of its key's order."""
    scores = [score(n, key, p, headers, 2_000 * more) for n, (key, p, headers, more) in enumerate(chosen)]
    records = packed(scores, times(scores))
    single = [Output(r.partition, r.key, r.value, r.headers) for r in unpacked(stored(records))]
    assert sorted(single) == sorted(scores)
    for of_key in {(o.partition, o.key) for o in scores}:
        assert [o for o in single if o[:2] == of_key] == [o for o in scores if o[:2] == of_key]
    lasts = [numbers(record)[-1] for record in records]
    assert lasts == sorted(lasts)
    assert all(len(record.value) <= pack.PACK_BYTES + 2 + len(chosen) for record in records if len(numbers(record)) > 1)
    assert all(len(numbers(record)) == 1 for record in records if record.headers)


def test_scores_of_a_key_share_a_record() -> None:
    """Three keys, three records, each where its last score stood."""
    scores = [score(n, key) for n, key in enumerate("abacbaa")]
    records = packed(scores, times(scores))
    assert [(record.key, numbers(record)) for record in records] == [
        (b"c", [3]), (b"b", [1, 4]), (b"a", [0, 2, 5, 6]),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("limit", "most"), [("PACK_BYTES", 3 * len(score(0).value)), ("PACK_SCORES", 3), ("PACK_MS", 2_000)]
)
def test_full_record_is_followed_by_the_next(monkeypatch: pytest.MonkeyPatch, limit: str, most: int) -> None:
    """By bytes, by scores, and by the time that they span."""
    monkeypatch.setattr(pack, limit, most)
    assert packed_numbers([score(n) for n in range(7)]) == [[0, 1, 2], [3, 4, 5], [6]]


def test_score_with_headers_is_alone() -> None:
    """A trace context is said of one event."""
    scores = [score(n, headers=n == 2) for n in range(5)]
    records = packed(scores, times(scores))
    assert [(numbers(record), bool(record.headers)) for record in records] == [
        ([0, 1], False), ([2], True), ([3, 4], False),
    ]  # fmt: skip


def test_one_score_is_written_as_ever() -> None:
    """A stream that is not behind has the same records, packed or not."""
    scores = [score(n, key) for n, key in enumerate("abc")]
    assert packed(scores, times(scores)) == scores


def test_scores_of_two_partitions_do_not_meet() -> None:
    """The same key may be in both."""
    scores = [score(0, "a", 0), score(1, "a", 1), score(2, "a", 0)]
    records = packed(scores, times(scores))
    assert [(p, [n for r in group for n in numbers(r)]) for p, group in groupby(records, lambda r: r.partition)] == [
        (1, [1]), (0, [0, 2]),
    ]  # fmt: skip


@pytest.mark.parametrize("value", [b"[1, 2", b"oops", b""])
def test_record_that_is_no_scores_stays_as_it_is(value: bytes) -> None:
    """Its readers know what to do with it."""
    record = Record("events.scores", 0, 0, 0, b"a", value)
    assert unpacked([record]) == [record]
