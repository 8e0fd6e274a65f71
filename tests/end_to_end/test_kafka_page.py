"""The live page on Kafka: committed records only, an anomaly within seconds, feedback in its topic, history."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import closing

import httpx
import msgspec
import pytest
from kafka import KafkaProducer

from streamlstm.core import feedback
from streamlstm.core.log import NewRecord
from streamlstm.core.record import encode
from streamlstm.core.topic import feedback_topic
from tests import builders
from tests.dashboard.boards import make_score
from tests.end_to_end.kafka_runs import Stream
from tests.end_to_end.page_stage import Dashboard
from tests.end_to_end.runs import start

KEYS = ("a", "b", "c")
WITHIN_S = 20.0


@pytest.fixture
def page(stream: Stream) -> Iterator[Dashboard]:
    """The page of a stream whose keys are warm."""
    append(stream, 120)
    stream.score_here(explain="all", alarm_rate=1e-4)
    place = ["--log", f"kafka://{stream.broker.bootstrap}", "--topic", stream.topic, "--model", stream.model]
    process = start("streamlstm", "dashboard", *place, "--port", 0)
    yield Dashboard(process)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors


def append(stream: Stream, steps: int, start: int = 0, spike: str = "") -> None:
    """Append steps of the feed; ``spike`` is a key that does what it never did at the first of them."""
    records = []
    for record in builders.make_feed(steps, KEYS, start=start, partitions=stream.partitions):
        event = msgspec.json.decode(record.value)
        if event["sensor"] == spike and event["time"] == builders.START_MS + start * builders.STEP_MS:
            event["flow"] = 40.0
        records.append(NewRecord(event["sensor"].encode(), msgspec.json.encode(event), (), record.partition))
    stream.append(records)


def state_when(page: Dashboard, wanted: str) -> dict[str, object]:
    """Return the first whole state that holds this text."""
    until_s = time.monotonic() + WITHIN_S
    while time.monotonic() < until_s:
        with httpx.stream("GET", page.address + "api/stream", timeout=WITHIN_S) as answer:
            line = next(line for line in answer.iter_lines() if line.startswith("data: "))
        if wanted in line:
            state: dict[str, object] = msgspec.json.decode(line[6:])
            return state
        time.sleep(0.2)
    raise AssertionError(line)


def test_page_shows_an_anomaly_and_takes_feedback_on_a_broker(stream: Stream, page: Dashboard) -> None:
    """The whole way, with several partitions and transactions in the topics."""
    state_when(page, '"keys":3')
    append(stream, 3, 120, "b")
    stream.score_here(explain="all", alarm_rate=1e-4)
    state = state_when(page, '"open":true')
    (episode,) = state["episodes"].values()  # type: ignore[attr-defined]
    assert (episode["key"], episode["shares"][0][0]) == ("b", "flow")
    lagging = state_when(page, '"lag":0')
    assert lagging["head"]["behind"] == 0  # type: ignore[index]

    said = {"id": "12345678", "action": "true", "key": "b", "partition": episode["partition"], "who": "ann"}
    headers = {"Origin": page.address.rstrip("/")}
    answer = httpx.post(
        page.address + "api/feedback", json={**said, "alert": episode["id"], "note": "seen"}, headers=headers
    )
    assert answer.status_code == 201
    with closing(stream.log()) as log:
        records = log.read(feedback_topic(stream.topic), episode["partition"], 0, 10)
    (record,) = [feedback.decode(record.value) for record in records]
    assert (record.who, record.action, record.note, record.alert) == ("ann", "true", "seen", episode["id"])
    state_when(page, '"note":"seen"')

    span = {"from": builders.START_MS, "until": builders.START_MS + 10**6, "width": builders.STEP_MS}
    past = httpx.get(page.address + "api/series", params={"key": "b", "partition": episode["partition"], **span}).json()
    assert len(past["score"]["bin"]) == 123
    assert max(past["features"][0]["max"]) == 40.0


def test_page_does_not_show_what_an_open_transaction_wrote(stream: Stream, page: Dashboard) -> None:
    """Uncommitted scores are as good as not there; once committed, they are."""
    before = state_when(page, '"keys":3')
    producer = KafkaProducer(bootstrap_servers=stream.broker.bootstrap, transactional_id=f"open-{stream.topic}")
    with closing(producer):
        producer.init_transactions()
        producer.begin_transaction()
        score = make_score("ghost", 500, offset=10**6)
        producer.send(stream.outputs[0], encode(score), b"ghost", partition=0).get(30)
        time.sleep(2.0)  # four looks of the page
        assert state_when(page, '"keys":3')["head"]["scored"] == before["head"]["scored"]  # type: ignore[index]
        producer.commit_transaction()
        assert state_when(page, '"keys":4')
