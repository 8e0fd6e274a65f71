"""Fixtures that give tests a Kafka broker; where there is none, the tests skip, or fail with ``CI=true``."""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kafka_broker import Broker, Cluster, NoBroker, SecureCluster, find_broker

FIXTURES = {"kafka", "kafka_node", "kafka_nodes", "secure_kafka"}
UNCLOSED = r"ignore:unclosed <(socket\.socket|ssl\.SSLSocket):ResourceWarning"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let tests with a broker forget sockets: kafka-python 3 does so wherever it cannot connect."""
    for item in items:
        if uses_a_broker(item):
            item.add_marker(pytest.mark.filterwarnings(UNCLOSED))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, Any, Any]:
    """… and have them collected before other tests are blamed for them."""
    result = yield
    if uses_a_broker(item) and not uses_a_broker(nextitem):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
    return result


def uses_a_broker(item: pytest.Item | None) -> bool:
    """Return whether a test asks for one of the fixtures below."""
    return not FIXTURES.isdisjoint(getattr(item, "fixturenames", ()))


def found(own: Callable[[Path], Cluster] | None = None) -> Any:
    """Return a broker to be started, or skip the test, or fail it where nothing may be skipped."""
    try:
        return find_broker(own)
    except NoBroker as missing:
        line = str(missing)
    if os.environ.get("CI") == "true":
        pytest.fail(line, pytrace=False)
    pytest.skip(line)


@pytest.fixture(scope="session")
def kafka() -> Iterator[Broker]:
    """A broker for all tests; each makes topics of its own."""
    with found() as broker:
        yield broker


@pytest.fixture(scope="session")
def _one_node(kafka: Broker) -> Iterator[Cluster]:
    if isinstance(kafka, Cluster):
        yield kafka
        return
    with found(Cluster) as cluster:
        yield cluster


@pytest.fixture
def kafka_node(_one_node: Cluster) -> Iterator[Cluster]:
    """A single node that the test may kill, stop and pause; it runs again afterwards."""
    yield _one_node
    _one_node.heal()


@pytest.fixture(scope="module")
def _three_nodes() -> Iterator[Cluster]:
    with found(lambda home: Cluster(home, nodes=3)) as cluster:
        yield cluster


@pytest.fixture
def kafka_nodes(_three_nodes: Cluster) -> Cluster:
    """Three nodes that replicate all and run; the test may kill, stop and pause them.

    They take a gigabyte and end with the module.
    """
    _three_nodes.heal()
    return _three_nodes


@pytest.fixture(scope="session")
def secure_kafka() -> Iterator[SecureCluster]:
    """A node with TLS, log-ins and ACLs; started by the first test that asks for it."""
    with found(SecureCluster) as cluster:
        assert isinstance(cluster, SecureCluster)
        yield cluster
