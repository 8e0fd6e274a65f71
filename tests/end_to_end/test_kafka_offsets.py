"""Positions or states that were lost: refused, instead of scoring twice or from nothing."""

from __future__ import annotations

from contextlib import closing

import pytest
from kafka import TopicPartition

from streamlstm.errors import LogError
from tests.end_to_end import kafka_runs
from tests.end_to_end.kafka_runs import Stream


@pytest.fixture
def scored(stream: Stream) -> Stream:
    """A stream that is scored to its end."""
    stream.append(kafka_runs.feed(20))
    stream.score_here()
    return stream


def test_topic_deleted_and_made_anew_is_refused(scored: Stream) -> None:
    """Kafka forgets the positions with the topic; the states tell that there was another one."""
    with closing(scored.broker.admin()) as admin:
        admin.delete_topics([scored.topic])
    with closing(scored.log()) as log:
        while log.cluster.exists(scored.topic):
            pass
        log.create_topic(scored.topic, scored.partitions)
    scored.append(kafka_runs.feed(10))
    with pytest.raises(LogError, match=r"its offsets were reset, or another program wrote there\. Use a new --group"):
        scored.score_here()


def test_positions_that_the_broker_forgot_are_refused(scored: Stream) -> None:
    """As after a week without a member (``offsets.retention.minutes``): it must not begin at the start again."""
    places = [TopicPartition(scored.topic, partition) for partition in range(scored.partitions)]
    before = len(scored.read(*scored.outputs))
    with closing(scored.broker.admin()) as admin:
        admin.delete_group_offsets(scored.group_id, places)
    for _ in range(2):
        with pytest.raises(LogError, match=r"has committed 0 only: its offsets were reset.*Use a new --group"):
            scored.score_here()
    assert len(scored.read(*scored.outputs)) == before


def test_lost_states_are_refused(scored: Stream) -> None:
    """Positions without states: all keys would start anew in the middle, in silence."""
    with closing(scored.broker.admin()) as admin:
        admin.delete_topics([scored.changelog])
    with pytest.raises(LogError, match=rf"'{scored.changelog}' is gone.*topic '{scored.topic}' partition \d"):
        scored.score_here()
