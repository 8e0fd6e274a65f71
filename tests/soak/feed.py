"""A feed that goes on for as long as it is asked, in which everything happens that may happen to one."""

from __future__ import annotations

import random
from collections import Counter

import msgspec

from streamlstm.core.log import NewRecord
from tests import builders
from tests.builders import STEP_MS

GUEST_EVERY_STEPS, GUEST_STEPS = 40, 3  # a key that comes, sends a few events, and is never seen again
SILENCE_STEPS = (70, 130)  # longer than a key may be silent before it starts anew (60 s)


class Feed:
    """Keys in turn, one event each a step; a step is a second of the events' time.

    Spikes that open alerts, silences, keys that come and go; and, as ``troubles`` counts, records that are no JSON,
    lack a field, come twice or late, or from the future, are too large, or nested without end.
    """

    def __init__(self, seed: int, keys_per_partition: int, partitions: int) -> None:
        self.troubles: Counter[str] = Counter()
        self.step = 0
        self._chance = random.Random(seed)
        self._seed, self._partitions = seed, partitions
        self._names = [f"{'abcdefgh'[n]}{p}" for n in range(keys_per_partition) for p in range(partitions)]
        self._silent_until: dict[str, int] = {}

    @property
    def keys(self) -> int:
        """Number of keys, without those that come and go."""
        return len(self._names)

    def next_step(self) -> list[NewRecord]:
        """Return the records of the next step."""
        found: list[NewRecord] = []
        guest, age = divmod(self.step, GUEST_EVERY_STEPS)
        names = [*self._names, *([f"guest-{guest}"] if age < GUEST_STEPS else [])]
        for place, record in enumerate(builders.make_feed(1, names, seed=self._seed, start=self.step)):
            event = msgspec.json.decode(record.value)
            found += self._key(event, place % self._partitions)
        self.step += 1
        return found

    def _key(self, event: dict[str, object], partition: int) -> list[NewRecord]:
        name, chance = str(event["sensor"]), self._chance
        if self.step < self._silent_until.get(name, 0):
            return []
        if chance.random() < 0.0005:
            self._silent_until[name] = self.step + chance.randint(*SILENCE_STEPS)
        if (self.step + sum(name.encode())) % 140 in range(100, 104):
            event["flow"] = 16.0 + self.step % 3
        key, value = name.encode(), msgspec.json.encode(event)
        return [NewRecord(key, value, (("source", b"soak"),), partition), *self._trouble(event, value, partition)]

    def _trouble(self, event: dict[str, object], value: bytes, partition: int) -> list[NewRecord]:
        chance, time_ms = self._chance, int(str(event["time"]))
        if chance.random() > 0.03:
            return []
        kinds = {
            "duplicate": value,
            "late": msgspec.json.encode({**event, "time": time_ms - 10 * STEP_MS}),
            "future": msgspec.json.encode({**event, "time": 3 * builders.START_MS}),
            "ancient": msgspec.json.encode({**event, "time": 5}),
            "no JSON": b"\xff{ no json",
            "empty": b"",
            "a field missing": b'{"sensor": "a0"}',
            "another type": msgspec.json.encode({**event, "flow": "much"}),
            "nested": b'{"x":' + b"[" * 10_000,
            "large": b" " * (100 << 10) + b"x",
            "long key": msgspec.json.encode({**event, "sensor": "k" * 5_000}),
        }
        kind = chance.choice(sorted(kinds))
        self.troubles[kind] += 1
        return [NewRecord(str(event["sensor"]).encode(), kinds[kind], (("empty", b""),), partition)]
