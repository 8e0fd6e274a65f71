"""The topics command: what it makes, and what it says is wrong."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from streamlstm.adapters.kafka.cluster import TopicSettings
from streamlstm.adapters.sqlite_log import SqliteLog
from streamlstm.errors import LogError, SettingsError
from streamlstm.services.settings import TopicsSettings
from streamlstm.services.topics import Wanted, problems, set_up_topics
from tests.kafka_broker import Broker

GOOD = {"cleanup.policy": "delete", "retention.ms": "-1", "min.insync.replicas": "2", "max.message.bytes": "1000000"}
SCORES = Wanted("events.scores", "scores")
STATES = Wanted("events.states.g", "states", compacted=True)
LETTERS = Wanted("events.dead-letters", "letters", letters=True)
INPUT = TopicSettings(4, 3, GOOD)


@pytest.mark.parametrize(
    ("wanted", "changes", "partitions", "replicas", "message"),
    [
        (SCORES, {}, 3, 3, "3 partitions, but the input has 4"),
        (SCORES, {"cleanup.policy": "compact"}, 4, 3, "all but a key's last record would be lost"),
        (SCORES, {"cleanup.policy": "compact,delete"}, 4, 3, "all but a key's last record would be lost"),
        (STATES, {"cleanup.policy": "delete"}, 4, 3, "states would be lost with age"),
        (STATES, {"cleanup.policy": "compact,delete"}, 4, 3, "states would be lost with age"),
        (SCORES, {"retention.ms": "3600000"}, 4, 3, "keeps records for 1 h only"),
        (SCORES, {"min.insync.replicas": "4"}, 4, 3, "nothing can be written"),
        (SCORES, {"min.insync.replicas": "3"}, 4, 3, "one broker down, and nothing can be written"),
        (SCORES, {"min.insync.replicas": "1"}, 4, 1, "can be lost with one broker"),
        (SCORES, {"unclean.leader.election.enable": "true"}, 4, 3, "unclean.leader.election.enable"),
        (LETTERS, {}, 4, 3, "would not fit, and stop the scorer; set it to 1065536"),
    ],
)
def test_each_problem_is_named_with_what_to_do(
    wanted: Wanted, changes: dict[str, str], partitions: int, replicas: int, message: str
) -> None:
    """One setting that is wrong gives one message."""
    found = TopicSettings(partitions, replicas, GOOD | changes)
    (problem,) = problems(wanted, found, INPUT, brokers=3)
    assert message in problem


@pytest.mark.parametrize(
    ("wanted", "changes"),
    [
        (SCORES, {}),
        (STATES, {"cleanup.policy": "compact", "retention.ms": "60000"}),
        (LETTERS, {"max.message.bytes": "1065536"}),
    ],
)
def test_good_topics_have_no_problems(wanted: Wanted, changes: dict[str, str]) -> None:
    """Nothing is said of what is right."""
    assert problems(wanted, TopicSettings(4, 3, GOOD | changes), INPUT, brokers=3) == []


def run(settings: TopicsSettings) -> str:
    """Run the command and return what it prints."""
    out = io.StringIO()
    try:
        set_up_topics(settings, Console(file=out, width=200))
    except LogError as error:
        out.write(str(error))
    return out.getvalue()


def test_topics_are_made_once_and_found_right_afterwards(kafka: Broker) -> None:
    """A dry run names what is missing; making them makes all right; and it can be run again."""
    topic = kafka.new_topic(3)
    settings = TopicsSettings(log=f"kafka://{kafka.bootstrap}", topic=topic, retention_s=864_000)
    dry = run(TopicsSettings(log=settings.log, topic=topic, dry_run=True))
    assert dry.count("missing") == 6
    assert f"{topic}.scores" in dry.splitlines()[-1]
    made = run(settings)
    assert made.count(" made") == 6
    assert "wrong" not in made
    again = run(settings)
    assert again.count(" ok") == 7
    assert "10 d" in again


def test_missing_input_topic_is_made_only_with_a_number_of_partitions(kafka: Broker) -> None:
    """How far a stream can be spread is for the operator to say."""
    settings = TopicsSettings(log=f"kafka://{kafka.bootstrap}", topic="topics-test-new")
    assert "missing: say --partitions to make it" in run(settings)
    assert run(TopicsSettings(log=settings.log, topic=settings.topic, partitions=2)).count(" made") == 7


def test_other_logs_are_refused(tmp_path: Path) -> None:
    """SQLite has nothing to set up."""
    SqliteLog(tmp_path / "log.db").close()
    with pytest.raises(SettingsError, match="only kafka://"):
        set_up_topics(TopicsSettings(log=f"sqlite:///{tmp_path}/log.db"), Console())
