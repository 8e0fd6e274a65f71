"""Fixtures of the tests on a broker: a stream, and processes on it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamlstm.adapters.bundle_files import write_bundle
from tests import builders
from tests.end_to_end.kafka_runs import Fleet, Stream
from tests.kafka_broker import Cluster

PROOFS = (
    "alerter",
    "compose",
    "crash",
    "nodes",
    "outage",
    "scaling",
    "upgrade",
    "zombie",
)  # minutes each: `make proof`


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the long proofs on a broker, which `make test` leaves out."""
    for item in items:
        if item.path.stem in {f"test_kafka_{name}" for name in PROOFS}:
            item.add_marker("proof")


@pytest.fixture(scope="session")
def kafka_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle that these tests score with, in a directory."""
    directory = tmp_path_factory.mktemp("kafka") / "model"
    write_bundle(builders.expiring_bundle(), directory, "")
    return directory


@pytest.fixture
def stream(kafka_node: Cluster, kafka_model: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Stream]:
    """Empty topics under a name of their own, on a node that may be killed."""
    caplog.set_level(logging.CRITICAL, "kafka")  # it tells of every broker that a test kills
    stream = Stream(kafka_node, kafka_model, builders.expiring_bundle())
    stream.create()
    yield stream
    kafka_node.heal()
    stream.delete()


@pytest.fixture
def fleet(stream: Stream, tmp_path: Path) -> Iterator[Fleet]:
    """Processes on the stream."""
    with Fleet(stream, tmp_path) as fleet:
        yield fleet
