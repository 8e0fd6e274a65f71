"""What a commit holds: outputs by partition, offsets, watermarks, dead letters; and which states are taken back."""

from __future__ import annotations

import msgspec
import pytest

from streamlstm.core.bundle import Bundle
from streamlstm.core.commit import Commit
from streamlstm.core.log import Record
from streamlstm.core.record import decode_score
from streamlstm.core.scorer import Scorer
from streamlstm.core.state import EVENTS
from streamlstm.errors import BundleError, LogError
from tests.builders import SCHEMA, START_MS, STEP_MS, bundle, changed, make_feed, make_record, run_polls


def commit_of(scorer: Scorer, records: list[Record]) -> Commit:
    """Return the commit of one poll, accepted."""
    outcome = scorer.score(scorer.read(records), {})
    commit = scorer.commit_of(outcome)
    scorer.accept(outcome)
    return commit


def other_bundle() -> Bundle:
    """Return the same detector for a stream it was not trained for: another digest, the same shapes."""
    schema = msgspec.structs.replace(SCHEMA, max_ahead_s=1.0)
    return msgspec.structs.replace(bundle(), schema=schema)


def test_commit_of_a_poll_binds_outputs_to_their_partition_and_key() -> None:
    """Every event has one score under its key, in its own partition, naming offset, time and model."""
    feed = make_feed(60, ("a", "b", "c"), partitions=2)
    commit = commit_of(Scorer(bundle()), feed)
    assert [output.partition for output in commit.scores] == [record.partition for record in feed]
    records = [decode_score(output.value) for output in commit.scores]
    assert [record.offset for record in records] == [record.offset for record in feed]
    assert [(output.key or b"").decode() for output in commit.scores] == [record.key for record in records]
    assert {record.model for record in records} == {bundle().name}
    assert [record.time_ms for record in records[::3]] == [START_MS + step * STEP_MS for step in range(60)]


def test_score_record_while_warming_up_has_no_score_at_all() -> None:
    """Unknown must not look like normal: the fields are absent from the JSON, not 0."""
    warmup = bundle().calibration.warmup_events
    commit = commit_of(Scorer(bundle()), make_feed(warmup + 1))
    fields = [msgspec.json.decode(output.value) for output in commit.scores]
    for event in fields[: 2 * warmup]:
        assert event["status"] == "warming_up"
        assert not {"score", "tail_probability", "threshold", "alert"} & set(event)
    for event in fields[2 * warmup :]:
        assert event["status"] == "scored"
        assert event["score"] > 0
        assert 0 < event["tail_probability"] <= 1


def test_commit_says_first_and_next_offset_and_watermark_of_each_partition() -> None:
    """Offsets cover bad records too; watermarks are the largest time of the events that counted."""
    records = [
        make_record(offset=7, time=START_MS + 5000),
        make_record(offset=3, partition=1),
        make_record(b"bad", offset=8),
        make_record(offset=9, sensor="late", time=START_MS + 1000),
        make_record(b"bad", offset=4, partition=2),
    ]
    commit = commit_of(Scorer(bundle()), records)
    assert commit.offsets == {0: (7, 10), 1: (3, 4), 2: (4, 5)}
    assert commit.watermarks == {0: START_MS + 5000, 1: START_MS}
    assert commit.expire_before_ms == {}
    assert {key: row.timestamp_ms for key, row in commit.states.items()} == {
        (0, b"a"): START_MS + 5000,
        (1, b"a"): START_MS,
        (0, b"late"): START_MS + 1000,
    }


def test_watermark_never_falls_from_poll_to_poll() -> None:
    """A later poll of earlier events keeps the watermark."""
    scorer = Scorer(bundle())
    commit_of(scorer, [make_record(offset=0, time=START_MS + 9000)])
    commit = commit_of(scorer, [make_record(offset=1, sensor="b")])
    assert commit.watermarks == {0: START_MS + 9000}


def test_commit_of_an_empty_or_all_bad_poll_holds_no_state() -> None:
    """Bad records alone move the offsets and nothing else."""
    assert commit_of(Scorer(bundle()), []).offsets == {}
    commit = commit_of(Scorer(bundle()), [make_record(b"bad", offset=1)])
    assert commit.offsets == {0: (1, 2)}
    assert not commit.scores
    assert not commit.states
    assert len(commit.dead_letters) == 1


@pytest.mark.parametrize("cause", ["malformed", "late", "duplicate"])
def test_dead_letter_is_the_record_as_it_was_and_says_why(cause: str) -> None:
    """Bytes, key and headers are kept; reason, detail and origin are told in further headers."""
    feed = make_feed(3, ("a",))
    bad = {"malformed": make_record(b"{"), "late": changed(feed[0], flow=9.0), "duplicate": feed[2]}[cause]
    bad = bad._replace(offset=3, key=b"\xff", headers=(("trace", b"1"),), timestamp_ms=START_MS * 2 + 5)
    (dead,) = commit_of(Scorer(bundle()), [*feed, bad]).dead_letters
    assert (dead.partition, dead.key, dead.value) == (0, b"\xff", bad.value)
    headers = dict(dead.headers)
    assert headers["reason"] == cause.encode()
    assert headers["detail"]
    assert (headers["topic"], headers["partition"], headers["offset"]) == (b"events", b"0", b"3")
    assert headers["timestamp_ms"] == str(START_MS * 2 + 5).encode()
    assert headers["trace"] == b"1"


def test_offset_scored_before_stops_with_an_error() -> None:
    """A record twice means that states and offsets do not belong together; going on would hide it."""
    scorer = Scorer(bundle())
    feed = make_feed(5, ("a",))
    commit_of(scorer, feed)
    with pytest.raises(LogError, match="offset 4 of key 'a' was scored before"):
        scorer.score(scorer.read([feed[4]._replace(value=make_record(time=START_MS * 2 - 1).value)]), {})


def test_state_of_another_bundle_is_refused_by_key_and_bundle() -> None:
    """A state is only good for the bundle that wrote it."""
    run = run_polls(Scorer(other_bundle()), [make_feed(3, ("a",))])
    scorer = Scorer(bundle())
    with pytest.raises(BundleError, match=f"'a' of partition 0 .*{other_bundle().name}.*{bundle().name}"):
        run_polls(scorer, [make_feed(3, ("a",), start=3)], run)
    assert len(scorer.arena) == 0


def test_state_of_another_bundle_starts_anew_where_that_is_wanted() -> None:
    """With reset_foreign_states the key begins from an empty row, exactly as a new one."""
    run = run_polls(Scorer(other_bundle()), [make_feed(3, ("a",))])
    later = [record._replace(offset=record.offset + 3) for record in make_feed(60, ("a",), start=3)]
    reset = run_polls(Scorer(bundle(), reset_foreign_states=True), [later], run)
    assert reset.scores[3:] == run_polls(Scorer(bundle()), [later]).scores


def test_episode_that_another_bundle_left_open_is_told_as_resolved() -> None:
    """A key that starts anew under a new model leaves no alert open for ever."""
    feed = make_feed(80, ("a",))
    feed[-1] = changed(feed[-1], flow=30.0)
    run = run_polls(Scorer(other_bundle()), [feed])
    later = [record._replace(offset=record.offset + 80) for record in make_feed(60, ("a",), start=80)]
    run_polls(Scorer(bundle(), reset_foreign_states=True), [later[:1], later[1:]], run)
    opened, resolved = run.alert_records
    assert (resolved.action, resolved.reason, resolved.id) == ("resolved", "reset", opened.id)
    assert (resolved.opened_offset, resolved.offset, resolved.since_ms) == (79, 80, opened.since_ms)
    assert (resolved.peak_score, resolved.events, resolved.model) == (opened.peak_score, 1, bundle().name)
    fresh = run_polls(Scorer(bundle()), [later])
    assert run.scores[80:] == fresh.scores
    assert run.states == fresh.states


def test_state_cut_short_is_an_error_that_names_the_key() -> None:
    """A damaged state is no reason to start a key anew in silence."""
    run = run_polls(Scorer(bundle()), [make_feed(3, ("a",))])
    row = run.states[0, b"a"]
    run.states[0, b"a"] = row._replace(value=row.value[:-1])
    with pytest.raises(LogError, match="'a' of partition 0: a state row of"):
        run_polls(Scorer(bundle()), [make_feed(3, ("a",), start=3)], run)


def test_state_of_a_partition_that_moved_away_is_forgotten() -> None:
    """Dropping a partition from the arena makes its keys missing again, so that they are loaded."""
    scorer = Scorer(bundle())
    feed = make_feed(4, ("a", "b"), partitions=2)
    commit_of(scorer, feed)
    scorer.arena.drop_partition(1)
    assert scorer.missing(scorer.read(feed)) == [(1, b"b")]
    assert scorer.arena.gather([(0, b"a")], (0.0, 0.0)).integers[0, EVENTS] == 4
