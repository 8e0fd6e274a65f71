"""The promise: the same bits in any batching, across restarts and evictions; and what a commit holds."""

from __future__ import annotations

import functools
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlstm.core.bundle import Alerting
from streamlstm.core.evidence import Told
from streamlstm.core.log import Record
from streamlstm.core.pack import unpacked
from streamlstm.core.scorer import Scorer
from tests.builders import START_MS, STEP_MS, Run, bundle, changed, expiring_bundle, make_feed, make_record, run_polls

ALERTING = Alerting(alarm_rate=1e-2, resolve_after_events=3, cooldown_events=4, hold_events=4)
EVENTS = 1000
SAME = settings(max_examples=25, deadline=None, derandomize=True)


def make_scorer(**options: Any) -> Scorer:
    """Return a scorer of the small bundle, with short episodes."""
    return Scorer(bundle(), alerting=ALERTING, **options)


@functools.cache
def feed() -> tuple[Record, ...]:
    """Return a feed of five keys on two partitions, with spikes, a shift, bad, late and repeated records."""
    records = make_feed(EVENTS // 5, ("a", "b", "c", "d", "e"), partitions=2, seed=3)
    for at in (301, 333, 402, 602):
        records[at] = changed(records[at], flow=14.0)
    for at in range(360, EVENTS, 5):
        records[at] = changed(records[at], pressure=2.4)
    records[320] = changed(records[320], flow="broken")
    records[310] = changed(records[310], time=START_MS)
    records[340] = records[335]._replace(offset=records[340].offset)
    return tuple(records)


@functools.cache
def one_by_one() -> Run:
    """Return what one event per poll leaves behind."""
    return run_polls(make_scorer(), [[record] for record in feed()])


def cut(records: tuple[Record, ...], at: list[int]) -> list[tuple[Record, ...]]:
    """Return the records as polls that end at the given places."""
    return [records[start:end] for start, end in pairwise([0, *sorted(set(at) - {0, len(records)}), len(records)])]


def assert_same(run: Run, expected: Run) -> None:
    """Check every output of every partition in its order, and every state, byte by byte."""
    for name in ("scores", "alerts", "dead_letters"):
        for partition in (0, 1):
            outputs, wanted = ([o for o in getattr(r, name) if o.partition == partition] for r in (run, expected))
            assert outputs == wanted
    assert run.states == expected.states


def test_feed_of_these_tests_holds_all_that_can_happen() -> None:
    """The comparisons below are over scores, every kind of alert record, and dead letters."""
    run = one_by_one()
    assert {(alert.action, alert.reason) for alert in run.alert_records} == {
        ("opened", None),
        ("updated", None),
        ("resolved", "calm"),
        ("resolved", "adapted"),
        ("resolved", "followed"),
    }
    assert len({alert.key for alert in run.alert_records}) > 2
    assert [dict(dead.headers)["reason"] for dead in run.dead_letters] == [b"late", b"invalid", b"duplicate"]
    assert len(run.scores) + len(run.dead_letters) == len(feed())


@SAME
@given(st.lists(st.integers(0, EVENTS), max_size=40))
def test_polls_cut_anywhere_give_the_bytes_of_one_event_per_poll(ends: list[int]) -> None:
    """However a feed falls into polls, scores, alerts, dead letters and states are the same bytes."""
    assert_same(run_polls(make_scorer(), cut(feed(), ends)), one_by_one())


@pytest.mark.parametrize("told", ["anomalous", "sampled"])
def test_fewer_score_records_are_a_part_of_all_and_change_nothing_else(told: Told) -> None:
    """All that an alert is made of is told; of the rest nothing, or one in a hundred; whatever the polls."""
    plain = one_by_one()
    fewer = run_polls(make_scorer(told=told), [[record] for record in feed()])
    assert_same(run_polls(make_scorer(told=told), cut(feed(), [100, 333, 640])), fewer)
    assert (fewer.alerts, fewer.dead_letters, fewer.states) == (plain.alerts, plain.dead_letters, plain.states)
    records = list(zip(plain.scores, plain.score_records, strict=True))
    rate = ALERTING.alarm_rate
    notable = [o for o, r in records if r.alert or (r.tail_probability is not None and r.tail_probability <= rate)]
    sampled = [o for o, r in records if r.offset % 100 == 0] if told == "sampled" else []
    assert 0 < len(notable) < len(records) / 2
    assert {output.value for output in fewer.scores} == {output.value for output in notable + sampled}
    assert {alert.offset for alert in plain.alert_records} <= {record.offset for record in fewer.score_records}


def test_packed_scores_are_those_of_one_event_per_poll() -> None:
    """Several of a key in one record; each by itself, the same bytes in the same order, whatever the polls."""
    plain, run = one_by_one(), run_polls(make_scorer(told="packed"), cut(feed(), [100, 333, 640]))
    assert len(run.scores) < len(plain.scores) / 5
    assert (run.alerts, run.dead_letters, run.states) == (plain.alerts, plain.dead_letters, plain.states)
    records = [Record("events.scores", o.partition, at, 0, o.key, o.value) for at, o in enumerate(run.scores)]
    for key in {(output.partition, output.key) for output in plain.scores}:
        single = [record.value for record in unpacked(records) if (record.partition, record.key) == key]
        assert single == [output.value for output in plain.scores if output[:2] == key]


@SAME
@given(st.randoms(use_true_random=False), st.integers(1, 100))
def test_partitions_interleaved_anyhow_give_the_same_bytes(random: object, size: int) -> None:
    """Each partition keeps its order; how polls mix them changes nothing."""
    queues = [[record for record in feed() if record.partition == p] for p in (0, 1)]
    mixed = []
    while any(queues):
        queue = random.choice([q for q in queues if q])  # type: ignore[attr-defined]
        mixed.append(queue.pop(0))
    assert_same(run_polls(make_scorer(), cut(tuple(mixed), list(range(0, EVENTS, size)))), one_by_one())


@SAME
@given(st.randoms(use_true_random=False))
def test_keys_interleaved_anyhow_have_the_same_scores(random: object) -> None:
    """A key's scores depend on its own events alone, not on whose events stand between them."""
    queues = [
        [r for r in feed() if b'"sensor":"%s"' % key in r.value and r.partition == 0] for key in (b"a", b"c", b"e")
    ]
    mixed: list[Record] = []
    while any(queues):
        queue = random.choice([q for q in queues if q])  # type: ignore[attr-defined]
        mixed.append(queue.pop(0)._replace(offset=len(mixed)))
    found, wanted = (
        sorted(
            (r.key, r.time_ms, r.score, r.tail_probability, r.threshold) for r in run.score_records if r.key in "ace"
        )
        for run in (run_polls(make_scorer(), [mixed]), one_by_one())
    )
    assert repr(found) == repr(wanted)


@SAME
@given(st.integers(0, EVENTS), st.integers(1, 200))
def test_scorer_that_starts_anew_from_states_continues_bit_for_bit(stop: int, size: int) -> None:
    """What a second process makes of the stored states equals never having stopped."""
    before, after = feed()[:stop], feed()[stop:]
    run = run_polls(make_scorer(), [before])
    assert_same(run_polls(make_scorer(), cut(after, list(range(0, len(after), size))), run), one_by_one())


@pytest.mark.parametrize(("max_keys", "size"), [(1, 1), (1, 7), (2, 50)])
def test_keys_evicted_and_loaded_again_continue_bit_for_bit(max_keys: int, size: int) -> None:
    """With room for one key nearly every event meets a row read back from its bytes."""
    scorer = make_scorer(max_keys=max_keys)
    assert_same(run_polls(scorer, cut(feed(), list(range(0, EVENTS, size)))), one_by_one())
    assert len(scorer.arena) == max_keys
    assert scorer.arena.evicted > 20


def test_outcome_that_is_dropped_leaves_the_scorer_as_it_was() -> None:
    """A poll scored and not accepted, as after a failed commit, can be scored again to the same bytes."""
    scorer, run = make_scorer(), Run()
    run_polls(scorer, [feed()[:200]], run)
    for _ in range(2):
        scorer.commit_of(scorer.score(scorer.read(feed()[200:300]), {}))
    assert_same(run_polls(scorer, [feed()[200:]], run), one_by_one())


def test_event_after_a_silent_gap_in_offsets_is_no_fault() -> None:
    """Offsets need only increase: a log may have removed some."""
    scorer = make_scorer()
    run = run_polls(scorer, [[make_record(offset=3), make_record(offset=900, time=START_MS + STEP_MS)]])
    assert len(run.scores) == 2


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_time_watched_is_that_of_each_key_however_polls_are_cut(size: int) -> None:
    """From a key's first event to its last, all keys together."""
    scorer, watched_ms = Scorer(bundle()), 0
    feed = make_feed(50, ("a", "b", "c"))
    for start in range(0, len(feed), size):
        outcome = scorer.score(scorer.read(feed[start : start + size]), {})
        scorer.accept(outcome)
        watched_ms += outcome.watched_ms
    assert watched_ms == 3 * 49 * STEP_MS


def test_silence_after_which_a_key_starts_anew_is_not_watched() -> None:
    """Nobody can say of it whether an alert was due."""
    scorer = Scorer(expiring_bundle())
    feed = make_feed(50, ("a",))
    later = [changed(record, time=START_MS + 900_000) for record in make_feed(1, ("a",))]
    later = [record._replace(offset=50) for record in later]
    scorer.accept(scorer.score(scorer.read(feed), {}))
    assert scorer.score(scorer.read(later), {}).watched_ms == 0
    assert scorer.score(scorer.read([changed(later[0], time=START_MS + 60_000)]), {}).watched_ms == 11_000
