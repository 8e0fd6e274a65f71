"""Trace context from an event to its score and its alerts."""

from __future__ import annotations

import doctest

import pytest

from streamlstm.core import trace
from streamlstm.core.commit import Commit
from streamlstm.core.log import Record
from streamlstm.core.record import decode_alert, decode_score
from streamlstm.core.scorer import Scorer
from streamlstm.core.trace import trace_headers
from tests.builders import bundle, changed, make_feed

PARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_examples_hold() -> None:
    """What the docstrings show is so."""
    assert doctest.testmod(trace).failed == 0


@pytest.mark.parametrize(
    "parent",
    [
        b"",
        PARENT[:-1],
        PARENT + b"0",
        PARENT.upper(),
        b"ff" + PARENT[2:],
        PARENT.replace(b"4bf92f3577b34da6a3ce929d0e0e4736", b"0" * 32),
        PARENT.replace(b"00f067aa0ba902b7", b"0" * 16),
        PARENT.replace(b"-", b"_"),
        b"g" + PARENT[1:],
    ],
)
def test_parent_that_is_none_is_not_carried_on(parent: bytes) -> None:
    """Who reads it would make a trace of its own; nor does its state go on."""
    assert trace_headers((("traceparent", parent), ("tracestate", b"a=1"))) == ()


@pytest.mark.parametrize("state", [b"", b"a=" + b"x" * 511, b"a=1\r\nHost: other", b"a=\xff", b" a=1"])
def test_state_that_could_do_harm_is_left_behind(state: bytes) -> None:
    """A header of a megabyte would make a score too large to write; a line break, a header of the webhook's request."""
    assert trace_headers((("traceparent", PARENT), ("tracestate", state))) == (("traceparent", PARENT),)


def commit_of(records: list[Record]) -> Commit:
    """Return the commit of all these records as one poll."""
    scorer = Scorer(bundle())
    return scorer.commit_of(scorer.score(scorer.read(records), {}))


def test_scores_and_alerts_carry_the_context_of_their_event_and_no_other_bit_changes() -> None:
    """Every third event is traced; an alert has the context of the event it is about."""
    plain = make_feed(160)
    plain[260:266] = [changed(record, flow=30.0) for record in plain[260:266]]

    def traced_by(offset: int) -> tuple[tuple[str, bytes], ...]:
        if offset % 3:
            return ()
        return (("traceparent", PARENT[:36] + b"%016x" % (offset + 1) + b"-01"), ("tracestate", b"offset=%d" % offset))

    traced = [record._replace(headers=(("other", b"x"), *traced_by(record.offset))) for record in plain]
    expected, got = commit_of(plain), commit_of(traced)
    for kind in ("scores", "alerts"):
        assert [o._replace(headers=()) for o in getattr(got, kind)] == list(getattr(expected, kind))
    assert (got.states, got.offsets) == (expected.states, expected.offsets)
    assert [o.headers for o in got.scores] == [traced_by(decode_score(o.value).offset) for o in got.scores]
    alerts = [decode_alert(o.value) for o in got.alerts]
    assert len({alert.offset for alert in alerts}) > 1
    assert [o.headers for o in got.alerts] == [traced_by(alert.offset) for alert in alerts]
