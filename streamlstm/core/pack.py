"""Several scores of a key in one record, as a JSON array; and each by itself again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from streamlstm.core.commit import Output
from streamlstm.core.log import Record

PACK_BYTES = 65_536  # where a record is full: far below what logs take, far above what a record costs by itself

_parts_of = msgspec.json.Decoder(list[msgspec.Raw]).decode


@dataclass
class _Pack:
    """Scores of one record, their bytes, and where the last of them stood."""

    scores: list[Output] = field(default_factory=list)
    size: int = 0
    last: int = 0

    def add(self, place: int, score: Output) -> None:
        self.scores.append(score)
        self.size += len(score.value)
        self.last = place

    def record(self) -> Output:
        first = self.scores[0]
        if len(self.scores) == 1:
            return first
        return first._replace(value=b"[%b]" % b",".join(score.value for score in self.scores))


def packed(scores: Iterable[Output]) -> list[Output]:
    """Return the same scores in fewer records: those of a key that follow each other in one, while it is not full.

    A record stands where its last score stood, so the last scores of records are in the order of the events. A score
    with headers has a record of its own: they are said of it alone.
    """
    packs: list[_Pack] = []
    growing: dict[tuple[int, bytes | None], _Pack] = {}
    for place, score in enumerate(scores):
        key = score.partition, score.key
        pack = growing.get(key)
        if pack is None or score.headers or pack.size + len(score.value) > PACK_BYTES:
            pack = growing[key] = _Pack()
            packs.append(pack)
        pack.add(place, score)
        if score.headers:
            del growing[key]
    return [pack.record() for pack in sorted(packs, key=lambda pack: pack.last)]


def unpacked(records: Iterable[Record]) -> list[Record]:
    """Return a record for each score in records of a scores topic, in order; place and headers are those of the whole.

    Raises ``msgspec.DecodeError`` for a value that begins like an array and is none.
    """
    single: list[Record] = []
    for record in records:
        if record.value.startswith(b"["):
            single += [record._replace(value=bytes(part)) for part in _parts_of(record.value)]
        else:
            single.append(record)
    return single
