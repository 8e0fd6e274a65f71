"""Several scores of a key in one record, as a JSON array; and each by itself again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from streamlstm.core.commit import Output
from streamlstm.core.log import Record

# Where a record is full. More in one would hardly be cheaper, and who reads some records should know how much that is.
PACK_SCORES, PACK_BYTES = 32, 65_536
PACK_MS = 30_000  # of event time from the first to the last: so records are found by the time of their last score

_parts_of = msgspec.json.Decoder(list[msgspec.Raw]).decode


@dataclass
class _Pack:
    """Scores of one record, the time of the first, their bytes, and where the last of them stood."""

    since_ms: int
    scores: list[Output] = field(default_factory=list)
    size: int = 0
    last: int = 0

    def add(self, place: int, score: Output) -> None:
        self.scores.append(score)
        self.size += len(score.value)
        self.last = place

    def takes(self, score: Output, time_ms: int) -> bool:
        return (
            len(self.scores) < PACK_SCORES
            and self.size + len(score.value) <= PACK_BYTES
            and time_ms - self.since_ms <= PACK_MS
        )

    def record(self) -> Output:
        first = self.scores[0]
        if len(self.scores) == 1:
            return first
        return first._replace(value=b"[%b]" % b",".join(score.value for score in self.scores))


def packed(scores: Iterable[Output], times_ms: Iterable[int]) -> list[Output]:
    """Return the same scores in fewer records: those of a key that follow each other in one, while it is not full.

    ``times_ms``: of their events, which never fall from one to the next of a key.
    A record stands where its last score stood, so the last scores of records are in the order of the events. A score
    with headers has a record of its own: they are said of it alone.
    """
    packs: list[_Pack] = []
    growing: dict[tuple[int, bytes | None], _Pack] = {}
    for place, (score, time_ms) in enumerate(zip(scores, times_ms, strict=True)):
        key = score.partition, score.key
        pack = growing.get(key)
        if pack is None or score.headers or not pack.takes(score, time_ms):
            pack = growing[key] = _Pack(time_ms)
            packs.append(pack)
        pack.add(place, score)
        if score.headers:
            del growing[key]
    return [pack.record() for pack in sorted(packs, key=lambda pack: pack.last)]


def unpacked(records: Iterable[Record]) -> list[Record]:
    """Return a record for each score in records of a scores topic, in order; place and headers are those of the whole.

    What is no array, or none that can be read, stays as it is: such a topic may hold anything.
    """
    single: list[Record] = []
    for record in records:
        single += [record._replace(value=part) for part in _parts(record.value)]
    return single


def _parts(value: bytes) -> list[bytes]:
    if not value.startswith(b"["):
        return [value]
    try:
        return [bytes(part) for part in _parts_of(value)]
    except msgspec.DecodeError:
        return [value]
