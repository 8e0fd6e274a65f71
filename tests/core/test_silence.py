"""A key that is silent for longer than ``expire_after_s`` starts anew."""

from __future__ import annotations

import msgspec
import pytest

from streamlstm.core.bundle import Alerting
from streamlstm.core.log import Record
from streamlstm.core.scorer import Scorer
from streamlstm.core.state import EVENTS
from tests.builders import (
    SCHEMA,
    START_MS,
    STEP_MS,
    Run,
    bundle,
    changed,
    make_feed,
    make_record,
    make_rich_feed,
    rich,
    run_polls,
)

EXPIRE_MS = 100 * STEP_MS
END = 80  # steps of the feed before the silence
ALERTING = Alerting(alarm_rate=1e-3, resolve_after_events=1000, cooldown_events=4, hold_events=2000)


def make_scorer() -> Scorer:
    """Return a scorer whose keys expire after a hundred steps."""
    schema = msgspec.structs.replace(SCHEMA, expire_after_s=EXPIRE_MS / 1000)
    return Scorer(msgspec.structs.replace(bundle(), schema=schema), alerting=ALERTING)


def events_of(scorer: Scorer, key: str, partition: int = 0) -> int:
    """Return how many events a key's row has seen since it was started."""
    return int(scorer.arena.gather([(partition, key.encode())], (0.0, 0.0)).integers[0, EVENTS])


def at(ms: int, *, offset: int, sensor: str = "a", partition: int = 0, flow: float = 10.0) -> Record:
    """Return an event ``ms`` after the start."""
    return make_record(time=START_MS + ms, offset=offset, sensor=sensor, partition=partition, flow=flow)


@pytest.mark.parametrize(("silence_ms", "events"), [(EXPIRE_MS, END + 1), (EXPIRE_MS + 1, 1)])
def test_key_silent_beyond_the_limit_starts_anew(silence_ms: int, events: int) -> None:
    """A silence of exactly the limit is bridged; a millisecond more and the row starts from nothing."""
    scorer = make_scorer()
    run_polls(scorer, [make_feed(END, ("a",)), [at((END - 1) * STEP_MS + silence_ms, offset=END)]])
    assert events_of(scorer, "a") == events


def test_key_started_anew_warms_up_and_scores_as_a_new_one() -> None:
    """Nothing of its former life is left: scores and state equal those of a key never seen before."""
    later = [r._replace(offset=r.offset + END) for r in make_feed(70, ("a",), start=END + 200)]
    returned = run_polls(make_scorer(), [make_feed(END, ("a",)), later])
    new = run_polls(make_scorer(), [later])
    assert returned.scores[END:] == new.scores
    assert returned.states == new.states
    warmup = bundle().calibration.warmup_events
    assert [record.status for record in returned.score_records[END:]] == ["warming_up"] * warmup + ["scored"] * (
        70 - warmup
    )


def test_key_started_anew_keeps_the_scale_of_its_own() -> None:
    """A key whose level is far from the fleet's is read in its own units after a silence, too."""
    found = rich().bundle
    found = msgspec.structs.replace(found, schema=msgspec.structs.replace(found.schema, expire_after_s=3600.0))
    assert found.scaler_of["y"] > 0
    later = [
        record._replace(offset=record.offset + 5)
        for record in (changed(r, time=START_MS + 10**8 + i) for i, r in enumerate(make_rich_feed(40, ("x", "y"))))
    ]
    returned = run_polls(Scorer(found), [[changed(later[1], time=START_MS)._replace(offset=0)], later])
    assert returned.states == run_polls(Scorer(found), [later]).states


@pytest.mark.parametrize("partition", [0, 1])
def test_silence_is_measured_by_the_keys_own_times(partition: int) -> None:
    """Another key that is far ahead, by its clock, makes no key silent, in one poll or in several."""
    feed = [at(0, offset=0), at(EXPIRE_MS + 1, offset=1, sensor="b", partition=partition), at(1, offset=2)]
    scorer = make_scorer()
    together = run_polls(scorer, [feed])
    assert events_of(scorer, "a") == 2
    assert together.states == run_polls(make_scorer(), [[record] for record in feed]).states


def test_episode_open_when_its_key_falls_silent_is_told_as_resolved() -> None:
    """When the key comes back, its episode ends with the reason silence, under the id it opened with."""
    feed = [*make_feed(END - 1, ("a",)), at((END - 1) * STEP_MS, offset=END - 1, flow=30.0)]
    scorer = make_scorer()
    run = run_polls(scorer, [feed])
    assert run.states[0, b"a"].pinned
    run_polls(scorer, [[at(END * STEP_MS + EXPIRE_MS, offset=END + 7)]], run)
    opened, resolved = run.alert_records
    assert (opened.action, resolved.action, resolved.reason) == ("opened", "resolved", "silence")
    assert resolved.id == opened.id == f"events:0:{END - 1}"
    assert (resolved.since_ms, resolved.opened_offset) == (START_MS + (END - 1) * STEP_MS, END - 1)
    assert (resolved.offset, resolved.time_ms) == (END + 7, START_MS + END * STEP_MS + EXPIRE_MS)
    assert (resolved.peak_score, resolved.score, resolved.features) == (opened.peak_score, None, [])
    assert run.score_records[-1].alert is None
    assert not run.states[0, b"a"].pinned


LAG_MS = int(1000 * SCHEMA.max_ahead_s)  # how far clocks may differ, here more than the silence


@pytest.mark.parametrize("ahead_ms", [EXPIRE_MS + LAG_MS, EXPIRE_MS + LAG_MS + 1])
def test_state_that_the_log_may_drop_makes_no_difference(ahead_ms: int) -> None:
    """A key comes back to the same scores whether its expired state is still there or was dropped."""
    last_ms = (END - 1) * STEP_MS
    scorer = make_scorer()
    kept = run_polls(scorer, [make_feed(END, ("a",))])
    assert not kept.states[0, b"a"].pinned
    commit = scorer.commit_of(scorer.score(scorer.read([at(last_ms + ahead_ms, offset=END, sensor="b")]), {}))
    limit_ms = commit.expire_before_ms[0]
    dropped = Run(states={key: row for key, row in kept.states.items() if row.timestamp_ms >= limit_ms})
    assert bool(dropped.states) == (ahead_ms == EXPIRE_MS + LAG_MS)
    back = [at(last_ms + ahead_ms - LAG_MS + i, offset=END + 1 + i) for i in range(60)]
    run_polls(make_scorer(), [back], kept)
    run_polls(make_scorer(), [back], dropped)
    assert kept.scores[END:] == dropped.scores
    assert kept.states == dropped.states
