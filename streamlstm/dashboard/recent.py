"""The last records of a topic as they were, by partition and offset, in a bounded number of bytes."""

from __future__ import annotations

from collections import OrderedDict

from streamlstm.core.log import Record

OVERHEAD_BYTES = 400  # of a record beside its value, in Python

Place = tuple[int, int]  # partition and offset


class Recent:
    """The records that came last; the oldest ones make room."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._records: OrderedDict[Place, Record] = OrderedDict()

    def add(self, place: Place, record: Record) -> None:
        """Keep a record under a place that is not taken yet, such as the offset of the event that it is about."""
        self._records[place] = record
        self._bytes += len(record.value) + OVERHEAD_BYTES
        while self._bytes > self._most_bytes and len(self._records) > 1:
            _, gone = self._records.popitem(last=False)
            self._bytes -= len(gone.value) + OVERHEAD_BYTES

    def get(self, place: Place) -> Record | None:
        """Return a record that is still kept."""
        return self._records.get(place)
