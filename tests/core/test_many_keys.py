"""A producer that makes up keys: memory stays what ``--max-keys`` allows, and what is stored expires."""

from __future__ import annotations

import msgspec

from streamlstm.core.scorer import Scorer
from tests.builders import make_record
from tests.fuzz import tiny

KEYS, POLL, MAX_KEYS = 20_000, 1_000, 500


def test_fresh_keys_without_end_take_no_more_memory_than_allowed() -> None:
    """Rows in memory are those allowed and those of one poll; each key costs the log one state of known size."""
    bundle = tiny.bundle()
    scorer = Scorer(bundle, max_keys=MAX_KEYS)
    event = {"time": tiny.START_MS, "x": [1.0, 2.0], "mode": "on"}
    sizes, largest = set(), 0
    for start in range(0, KEYS, POLL):
        records = [
            make_record(msgspec.json.encode({**event, "id": f"made-up-{n}"}), offset=n)
            for n in range(start, start + POLL)
        ]
        outcome = scorer.score(scorer.read(records), {})
        sizes |= {len(row.value) for row in scorer.commit_of(outcome).states.values()}
        scorer.accept(outcome)
        largest = max(largest, scorer.arena.nbytes)
    assert len(scorer.arena) == MAX_KEYS
    row = largest / (MAX_KEYS + POLL)
    (size,) = sizes
    assert row < 2 * size, "the arrays hold no more than twice the rows needed: they grow by doubling"
    assert scorer.arena.evicted == KEYS - MAX_KEYS


def test_made_up_keys_expire_where_the_schema_says_so() -> None:
    """With expire_after_s the log may drop their states; without, they stay: the schema's choice."""
    bundle = tiny.bundle()
    for expire_after_s in (60.0, None):
        schema = msgspec.structs.replace(bundle.schema, expire_after_s=expire_after_s)
        scorer = Scorer(msgspec.structs.replace(bundle, schema=schema))
        outcome = scorer.score(scorer.read(list(tiny.events(schema))), {})
        assert bool(scorer.commit_of(outcome).expire_before_ms) == (expire_after_s is not None)


def test_key_as_long_as_a_record_is_refused_before_it_is_kept() -> None:
    """A key takes at most 512 bytes of each score, alert and state."""
    scorer = Scorer(tiny.bundle())
    event = {"time": tiny.START_MS, "x": [1.0, 2.0], "id": "k" * 900_000}
    poll = scorer.read([make_record(msgspec.json.encode(event))])
    assert not poll.keys
    assert [rejection.reason for rejection in poll.rejections] == ["invalid"]
