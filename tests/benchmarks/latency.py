"""How late a score is, and how long a scorer takes to its first: ``python -m tests.benchmarks.latency``.

Starts its own broker. Events are sent at an even pace; one consumer sees them in their topic, which is what the broker
and the client take, and their scores, committed, in theirs: both in milliseconds since the event was sent. Producer,
consumer, broker and scorer share the machine.

Then a scorer is started again and again, on a topic with one new event and some states to read back, and beside it
the parts of its start: Python, the imports, the compiled code. All have Python's bytecode, as where it is installed.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.util import find_spec
from itertools import count, islice
from pathlib import Path

import cyclopts
import numpy as np

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from kafka import KafkaConsumer, KafkaProducer, TopicPartition

    from tests.kafka_broker import Broker, find_broker

from streamlstm.adapters.bundle_files import write_bundle
from streamlstm.core.topic import scores_topic
from tests.benchmarks.core_step import bundle
from tests.benchmarks.kafka_throughput import PARTITIONS, Count, feed, machine

KEYS = 100
SETTLE_S = 3  # at first: connections, compiled code, the first segments of the topics
IMPORTS = "import streamlstm.cli, streamlstm.services.scorer, streamlstm.adapters.kafka.log"
SCORE_ONE = """
import sys
from pathlib import Path
from streamlstm.adapters.bundle_files import read_bundle
from streamlstm.core.log import Record
from streamlstm.core.scorer import Scorer
scorer = Scorer(read_bundle(Path(sys.argv[1])))
scorer.accept(scorer.score(scorer.read([Record("events", 0, 0, 10**12, None, sys.argv[2].encode())]), {}))
"""


class Seen:
    """Reads the topic and its scores, and notes when each record came, by topic and partition, in order."""

    def __init__(self, broker: Broker, topic: str) -> None:
        self.at_s: dict[tuple[str, int], list[float]] = {
            (name, partition): [] for name in (topic, scores_topic(topic)) for partition in range(PARTITIONS)
        }
        self._consumer = KafkaConsumer(
            bootstrap_servers=broker.bootstrap, isolation_level="read_committed", enable_auto_commit=False
        )
        self._consumer.assign([TopicPartition(*place) for place in self.at_s])
        self._consumer.seek_to_beginning()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def _read(self) -> None:
        while not self._stop.is_set():
            polled = self._consumer.poll(timeout_ms=100)
            now_s = time.perf_counter()
            for place, records in polled.items():
                self.at_s[place.topic, place.partition] += [now_s] * len(records)

    def of(self, topic: str) -> int:
        """Return how many came of a topic."""
        return sum(len(times) for (name, _), times in self.at_s.items() if name == topic)

    def wait(self, topic: str, records: int, limit_s: float = 120.0) -> None:
        """Wait until so many came of a topic."""
        until_s = time.monotonic() + limit_s
        while self.of(topic) < records:
            if time.monotonic() > until_s:
                raise TimeoutError(f"{self.of(topic)} of {records} records of {topic}")
            time.sleep(0.0005)

    def __enter__(self) -> Seen:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._consumer.close()


@contextmanager
def scorer(address: str, topic: str, model: Path, instance: str) -> Iterator[None]:
    """Run ``streamlstm score`` on a topic."""
    command = [sys.executable, "-m", "streamlstm", "score", "--log", address, "--topic", topic]
    command += ["--model", str(model), "--instance", instance]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()


def latency(broker: Broker, scheme: str, model: Path, rate: int, seconds: int) -> None:
    """Print how late events and their scores are."""
    topic = broker.new_topic(partitions=PARTITIONS)
    with closing(broker.admin()) as admin:
        admin.create_topics({scores_topic(topic): {"num_partitions": PARTITIONS}}, wait_for_metadata=True)
    sent_s: list[list[float]] = [[] for _ in range(PARTITIONS)]
    events = list(islice(feed(10**9, KEYS), rate * (seconds + SETTLE_S)))
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap, linger_ms=0)
    with (
        closing(producer),
        scorer(f"{scheme}://{broker.bootstrap}", topic, model, "latency"),
        Seen(broker, topic) as seen,
    ):
        started_s = time.perf_counter()
        for number, event in enumerate(events):
            time.sleep(max(0.0, started_s + number / rate - time.perf_counter()))
            sent_s[event.partition].append(time.perf_counter())
            producer.send(topic, event.value, event.key, None, event.partition)
            if number == rate:  # a second's worth; then the scorer is awaited, and the pace starts anew
                seen.wait(scores_topic(topic), number + 1)
                started_s = time.perf_counter() - number / rate
        seen.wait(scores_topic(topic), len(events))
    skip = rate * SETTLE_S // PARTITIONS
    for what, name in (("event in its topic", topic), ("committed score", scores_topic(topic))):
        late_ms = 1000 * np.concatenate(
            [np.subtract(seen.at_s[name, place], sent_s[place])[skip:] for place in range(PARTITIONS)]
        )
        p50, p99 = np.percentile(late_ms, [50, 99])
        print(
            f"{scheme:16} {what:20} p50 {p50:6.1f} ms   p99 {p99:6.1f} ms   worst {late_ms.max():6.1f} ms", flush=True
        )


def start(broker: Broker, scheme: str, model: Path, repeats: int) -> None:
    """Print where the time goes from a scorer's start to its first committed score."""
    topic = broker.new_topic(partitions=PARTITIONS)
    with closing(broker.admin()) as admin:
        admin.create_topics({scores_topic(topic): {"num_partitions": PARTITIONS}}, wait_for_metadata=True)
    events, sent = feed(10**9, KEYS), count(KEYS)
    example = next(feed(1, 1)).value or b""
    parts: dict[str, list[float]] = {name: [] for name in ("Python", "imports", "compiled code", "whole")}
    with closing(KafkaProducer(bootstrap_servers=broker.bootstrap)) as producer, Seen(broker, topic) as seen:
        for event in islice(events, KEYS):
            producer.send(topic, event.value, event.key, None, event.partition)
        with scorer(f"{scheme}://{broker.bootstrap}", topic, model, "start"):
            seen.wait(scores_topic(topic), KEYS)
        for _, done in zip(range(repeats), sent, strict=False):
            parts["Python"].append(seconds("pass"))
            parts["imports"].append(seconds(IMPORTS))
            parts["compiled code"].append(seconds(f"{IMPORTS}\n{SCORE_ONE}", str(model), example.decode()))
            event = next(events)
            producer.send(topic, event.value, event.key, None, event.partition)
            producer.flush()
            started_s = time.perf_counter()
            with scorer(f"{scheme}://{broker.bootstrap}", topic, model, "start"):
                seen.wait(scores_topic(topic), done + 1)
                parts["whole"].append(time.perf_counter() - started_s)
    python, imports, compiled, whole = (statistics.median(times) for times in parts.values())
    print(
        f"{scheme:16} first score after {whole:.2f} s: Python {python:.2f}, imports {imports - python:.2f}, "
        f"bundle and compiled code {compiled - imports:.2f}, group, states of {KEYS} keys, poll and commit "
        f"{whole - compiled:.2f}",
        flush=True,
    )


def seconds(script: str, *arguments: str) -> float:
    """Return how long Python takes for a script."""
    started_s = time.perf_counter()
    subprocess.run([sys.executable, "-c", script, *arguments], check=True)
    return time.perf_counter() - started_s


def main(*, rate: Count = 1_000, seconds: Count = 20, repeats: Count = 5) -> None:
    """Print latencies at a pace, and the parts of a start.

    Parameters
    ----------
    rate
        Events a second.
    seconds
        For which latencies are taken.
    repeats
        Starts, of which the median is printed.
    """
    schemes = ["kafka", "kafka+confluent"] if find_spec("confluent_kafka") else ["kafka"]
    print(f"{machine()}\n{rate:,} events a second of {KEYS} keys for {seconds} s, {PARTITIONS} partitions\n")
    with find_broker() as broker, tempfile.TemporaryDirectory() as directory:
        model = Path(directory) / "model"
        write_bundle(bundle(), model, "")
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = str(Path(directory) / "bytecode")  # made by the first start
        for scheme in schemes:
            latency(broker, scheme, model, rate, seconds)
        for scheme in schemes:
            start(broker, scheme, model, repeats)


if __name__ == "__main__":
    cyclopts.run(main)
