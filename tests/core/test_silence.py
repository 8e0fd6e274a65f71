"""A key that is silent for longer than ``expire_after_s`` starts anew."""

from __future__ import annotations

import msgspec
import pytest

from streamlstm.core.bundle import Alerting
from streamlstm.core.log import Record
from streamlstm.core.scorer import Scorer
from streamlstm.core.state import EVENTS
from tests.builders import SCHEMA, START_MS, STEP_MS, bundle, make_feed, make_record, run_polls

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


@pytest.mark.parametrize(("partition", "events"), [(0, 1), (1, 2)])
def test_silence_is_measured_against_the_partitions_watermark(partition: int, events: int) -> None:
    """Another key of the partition that is far ahead in time makes a key's silence too long; elsewhere it does not."""
    scorer = make_scorer()
    feed = [at(0, offset=0), at(EXPIRE_MS + 1, offset=5, sensor="b", partition=partition), at(1, offset=9)]
    run_polls(scorer, [[record] for record in feed])
    assert events_of(scorer, "a") == events


def test_silence_within_one_poll_counts_as_over_several() -> None:
    """The watermark moves event by event, not poll by poll."""
    feed = [at(0, offset=0), at(EXPIRE_MS + 1, offset=1, sensor="b"), at(1, offset=2), at(2, offset=3)]
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


def test_state_of_a_key_without_an_episode_is_not_pinned_and_may_expire() -> None:
    """A commit says below which time states may be dropped, and which ones must not be."""
    scorer = make_scorer()
    commit = scorer.commit_of(scorer.score(scorer.read(make_feed(END, ("a",))), {}))
    assert commit.expire_before_ms == {0: START_MS + (END - 1) * STEP_MS - EXPIRE_MS}
    assert not commit.states[0, b"a"].pinned


@pytest.mark.parametrize("ahead_ms", [EXPIRE_MS - STEP_MS, EXPIRE_MS, EXPIRE_MS + 1, EXPIRE_MS + STEP_MS])
def test_state_dropped_by_the_log_makes_no_difference(ahead_ms: int) -> None:
    """A scorer that finds an expired state gone writes the same scores as one that still has it."""
    feed = make_feed(END, ("a",))
    last_ms = (END - 1) * STEP_MS
    other = [at(last_ms + ahead_ms, offset=END, sensor="b")]
    back = [r._replace(offset=r.offset + END + 1) for r in make_feed(60, ("a",), start=END)]

    kept, dropped = (run_polls(make_scorer(), [feed, other]) for _ in range(2))
    expire_before_ms = START_MS + last_ms + ahead_ms - EXPIRE_MS
    dropped.states = {k: s for k, s in dropped.states.items() if s.pinned or s.timestamp_ms >= expire_before_ms}
    for run in (kept, dropped):
        scorer = make_scorer()
        scorer.watermarks[0] = START_MS + last_ms + ahead_ms
        run_polls(scorer, [back], run)
    assert kept.scores == dropped.scores
    assert kept.states == dropped.states
