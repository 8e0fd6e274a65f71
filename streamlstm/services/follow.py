"""Follow a topic from outside its group: committed records, from some place on, nothing claimed and nothing moved."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from streamlstm.core.log import EventLog, Record, TopicInfo
from streamlstm.errors import OffsetExpired, TopicMissing

Start = Callable[[EventLog, TopicInfo, int], int]


def last(records: int) -> Start:
    """Start at most so many records before the topic's end, all partitions together."""

    def start(_log: EventLog, info: TopicInfo, partition: int) -> int:
        return max(info.start_offsets[partition], info.end_offsets[partition] - records // info.partitions)

    return start


def since(timestamp_ms: int) -> Start:
    """Start at the first record that the log took at or after this time."""

    def start(log: EventLog, info: TopicInfo, partition: int) -> int:
        return log.offset_at(info.name, partition, timestamp_ms)

    return start


class Follower:
    """Reads on in one topic. A topic that does not exist yet is an empty one; partitions may be added.

    ``skipped`` counts what retention took before it was read.
    """

    def __init__(self, topic: str, start: Start) -> None:
        self.topic = topic
        self.info: TopicInfo | None = None
        self.skipped = 0
        self._start = start
        self._next: dict[int, int] = {}

    def read(self, log: EventLog, max_records: int) -> list[Record]:
        """Return what is new, at most so many records per partition, in offset order per partition.

        Raises :class:`~streamlstm.errors.LogUnavailable`; nothing is skipped then.
        """
        try:
            self.info = info = log.topic(self.topic)
        except TopicMissing:
            return []
        found: list[Record] = []
        for partition, end in enumerate(info.end_offsets):
            if partition not in self._next:
                self._next[partition] = self._start(log, info, partition)
            found += self._read(log, info, partition, end, max_records)
        return found

    def behind(self) -> int:
        """Return how many offsets lie between what was read and the end, as of the last :meth:`read`."""
        ends: Sequence[int] = self.info.end_offsets if self.info else ()
        return sum(max(0, end - self._next.get(partition, end)) for partition, end in enumerate(ends))

    def _read(self, log: EventLog, info: TopicInfo, partition: int, end: int, max_records: int) -> list[Record]:
        if self._next[partition] < info.start_offsets[partition]:
            self.skipped += info.start_offsets[partition] - self._next[partition]
            self._next[partition] = info.start_offsets[partition]
        if self._next[partition] >= end:
            return []
        try:
            records = log.read(self.topic, partition, self._next[partition], max_records)
        except OffsetExpired:  # by retention, just now: the next call starts at what is left
            return []
        if records:
            self._next[partition] = records[-1].offset + 1
        if len(records) < max_records:  # all of it: up to the end there are only marks of transactions
            self._next[partition] = max(self._next[partition], end)
        return records
