"""A key's past, from the log: the scores and events in a span of event time, found by bisection."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import msgspec

from streamlstm.core.feedback import Key
from streamlstm.core.log import EventLog, Record
from streamlstm.core.pack import PACK_MS, unpacked
from streamlstm.core.topic import scores_topic
from streamlstm.dashboard.series import Stretch, points_of
from streamlstm.errors import LogError

PAGE = 5_000
MOST_SCANNED = 100_000  # scores of all keys, a second or two
MOST_POINTS = 20_000
SLACK_MS = 60_000 + PACK_MS  # how far one key's time may run ahead of another's in a partition


class History(NamedTuple):
    """A stretch of a key, and up to when it is whole: reading further would have taken too long."""

    stretch: Stretch
    whole_until_ms: int


class _Time(msgspec.Struct):
    time_ms: int


_time_of = msgspec.json.Decoder(_Time).decode


def history_of(log: EventLog, topic: str, key: Key, since_ms: int, until_ms: int) -> History:
    """Return a key's events with a time in ``since_ms``…``until_ms``, as far as the log still has their scores."""
    partition, name = key[0], key[1].encode()
    info = log.topic(scores_topic(topic))
    if not 0 <= partition < info.partitions:
        raise LogError(f"topic '{info.name}' has no partition {partition}")
    offset, end = first_offset(log, topic, partition, since_ms), info.end_offsets[partition]
    scores: list[Record] = []
    read_ms, scanned, whole = since_ms, 0, True
    for record in _records(log, info.name, partition, offset, end):
        single = unpacked([record])
        if record.key == name:
            scores += [score for score in single if since_ms <= _time_of(score.value).time_ms <= until_ms]
        read_ms, scanned = max(read_ms, _time_of(single[-1].value).time_ms), scanned + len(single)
        if read_ms > until_ms + SLACK_MS or scanned >= MOST_SCANNED or len(scores) >= MOST_POINTS:
            whole = record.offset + 1 >= end or read_ms > until_ms
            break
    points = points_of(scores)
    return History(
        Stretch(points, _events(log, topic, partition, points["offset"].tolist()), scores),
        until_ms if whole else read_ms,
    )


def _records(log: EventLog, topic: str, partition: int, offset: int, end: int) -> Iterator[Record]:
    while offset < end:
        page = log.read(topic, partition, offset, PAGE)
        if not page:
            return
        yield from page
        offset = page[-1].offset + 1


def first_offset(log: EventLog, topic: str, partition: int, since_ms: int) -> int:
    """Return where in the scores the events of this time begin, give or take what one key is ahead of another.

    The log finds records by when it took them; a replay's events have other times. But those rise with the offsets.
    """
    info = log.topic(scores_topic(topic))
    low, high = info.start_offsets[partition], info.end_offsets[partition]
    while high - low > PAGE:
        middle = (low + high) // 2
        found = log.read(info.name, partition, middle, 1)
        if found and _time_of(unpacked(found[:1])[-1].value).time_ms < since_ms - SLACK_MS:
            low = middle
        else:
            high = middle
    return low


def _events(log: EventLog, topic: str, partition: int, offsets: Sequence[int]) -> list[Record | None]:
    """Return the input's records at these offsets, None for those that are gone."""
    if not offsets:
        return []
    wanted, found = set(offsets), dict[int, Record]()
    first = max(offsets[0], log.topic(topic).start_offsets[partition])
    for record in islice(_records(log, topic, partition, first, offsets[-1] + 1), MOST_SCANNED):
        if record.offset in wanted:
            found[record.offset] = record
    return [found.get(offset) for offset in offsets]
