"""What the live page costs at a thousand keys and 5,000 events a second, with browsers looking on, some asleep.

``python -m tests.benchmarks.dashboard_load``. Events and their scores go to a SQLite log at that pace, one commit a
second; the dashboard is a process of its own. Printed: its share of one core, its memory, how late it is, what a
browser gets per second, and how long a commit of the writer takes with the page and without.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from multiprocessing import Pipe, Process
from multiprocessing.connection import Connection
from pathlib import Path

import httpx
import msgspec

from streamlstm.adapters.bundle_files import write_bundle
from streamlstm.adapters.sqlite_log import SqliteLog
from streamlstm.core.log import NewRecord
from streamlstm.core.record import FeatureEvidence, ScoreRecord, encode
from streamlstm.core.topic import alerts_topic, dead_letters_topic, scores_topic
from tests import builders
from tests.end_to_end.page_stage import Dashboard
from tests.end_to_end.runs import start

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PARTITIONS = 4
BROWSERS = 5


class Writer:
    """Writes events and their scores, a second's worth at once."""

    def __init__(self, path: Path, keys: int, per_s: int) -> None:
        self.log = SqliteLog(path)
        self.keys, self.per_s = [f"key-{i:04}" for i in range(keys)], per_s
        self.written = 0
        self.took_s: list[float] = []
        self._offsets = [0] * PARTITIONS
        for topic in ("events", *(name("events") for name in (scores_topic, alerts_topic, dead_letters_topic))):
            self.log.create_topic(topic, PARTITIONS)

    def second(self, now_ms: int) -> None:
        """Write a second's worth."""
        events, scores = [], []
        for i in range(self.per_s):
            place = self.written % len(self.keys)
            key, partition = self.keys[place], place % PARTITIONS
            at_ms = now_ms - 1_000 + i * 1_000 // self.per_s
            event = {"sensor": key, "time": at_ms, "flow": 10.0, "pressure": 2.0}
            events.append(NewRecord(key.encode(), msgspec.json.encode(event), (), partition))
            scores.append(NewRecord(key.encode(), self._score(key, at_ms, partition, place), (), partition))
            self._offsets[partition] += 1
            self.written += 1
        began_s = time.perf_counter()
        self.log.append("events", events)
        self.log.append(scores_topic("events"), scores)
        self.took_s.append(time.perf_counter() - began_s)

    def _score(self, key: str, at_ms: int, partition: int, place: int) -> bytes:
        rare = 1e-5 if (self.written // 997) % 50 == place % 50 else 0.01 + (self.written * 7919 % 1000) / 1000
        features = [
            FeatureEvidence("flow", "l/min", 0.8, 10.0123456789, 10.0345678901, 9.5678901234, 10.5678901234),
            FeatureEvidence("pressure", "bar", 0.2, 2.0123456789, 2.0345678901, 1.8678901234, 2.2678901234),
        ]
        offset, model = self._offsets[partition], builders.bundle().name
        return encode(ScoreRecord(key, at_ms, offset, "scored", model, 1.2345678, rare, 3.3456789, None, features))

    def run(self, seconds: int, each: Callable[[], None] = lambda: None) -> None:
        """Write for so long, at the pace of the clock."""
        begin_s = time.monotonic()
        for second in range(seconds):
            self.second(time.time_ns() // 1_000_000)
            each()
            time.sleep(max(0.0, begin_s + second + 1 - time.monotonic()))


class Browser(threading.Thread):
    """Reads the stream, counts bytes, and notes how old the newest event is when it is heard of."""

    def __init__(self, address: str, key: str | None) -> None:
        super().__init__(daemon=True)
        self.bytes, self.late_ms, self.pushes = 0, list[float](), 0
        self._url = address + "api/stream" + (f"?key={key}" if key else "")

    def run(self) -> None:
        """Read until the server ends."""
        try:
            with httpx.stream("GET", self._url, timeout=60) as answer:
                for line in answer.iter_lines():
                    self._hear(line)
        except httpx.HTTPError:
            return

    def _hear(self, line: str) -> None:
        self.bytes += len(line)
        if not line.startswith("data: {"):
            return
        self.pushes += 1
        head = msgspec.json.decode(line[6:]).get("head", {})
        if now_ms := head.get("now_ms"):
            self.late_ms.append(time.time_ns() / 1e6 - now_ms)


def look_on(address: str, ends: Connection) -> None:
    """Be the browsers, in a process of their own; answer each word from the other end with what was heard so far."""
    browsers = [Browser(address, None if i else "key-0001") for i in range(BROWSERS)]
    for browser in browsers:
        browser.start()
    while ends.recv():
        ends.send([(browser.bytes, browser.pushes, browser.late_ms) for browser in browsers])


def used(process: int) -> tuple[float, float, float]:
    """Return seconds on a processor, MiB in memory now, and at most."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    status = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    now, most = (int(status[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S, now, most


def asleep(dashboard: Dashboard) -> socket.socket:
    """Return a connection that asked for the stream and reads nothing."""
    connection = socket.create_connection(("127.0.0.1", dashboard.port))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    connection.sendall(b"GET /api/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return connection


def measure(directory: Path, keys: int, per_s: int, seconds: int) -> Iterator[str]:
    """Yield lines of the report."""
    write_bundle(builders.bundle(), directory / "model", "")
    writer = Writer(directory / "log.db", keys, per_s)
    writer.run(10)
    alone_s = statistics.median(writer.took_s)
    log = f"sqlite:///{directory / 'log.db'}"
    process = start("streamlstm", "dashboard", "--log", log, "--model", directory / "model", "--port", 0)
    with ExitStack() as opened:
        opened.callback(process.kill)
        page = Dashboard(process)
        ours, theirs = Pipe()
        looking = Process(target=look_on, args=(page.address, theirs), daemon=True)
        looking.start()
        opened.callback(looking.kill)
        sleepers = [opened.enter_context(asleep(page)) for _ in range(3)]
        writer.run(10)
        writer.took_s.clear()
        memory: list[float] = []
        ours.send(True)
        before, before_s = ours.recv(), used(process.pid)[0]
        writer.run(seconds, lambda: memory.append(used(process.pid)[1]))
        after_s, _, most = used(process.pid)
        ours.send(True)
        after = ours.recv()
        process.terminate()
        process.wait(30)
        assert sleepers
    rate = [(new[0] - old[0]) / seconds / 1024 for old, new in zip(before, after, strict=True)]
    pushes = (after[1][1] - before[1][1]) / seconds
    late = sorted(after[1][2][len(before[1][2]) :])
    writing = statistics.median(writer.took_s) / alone_s
    yield f"{keys:,} keys, {per_s:,} events/s for {seconds} s; {BROWSERS} browsers, and 3 that read nothing"
    yield f"processor: {100 * (after_s - before_s) / seconds:.0f} % of one core"
    yield f"memory: {memory[0]:.0f} MiB at first, {memory[-1]:.0f} MiB at the end, {most:.0f} MiB at most"
    yield f"newest event, when pushed: median {late[len(late) // 2]:.0f} ms old, 95 % {late[len(late) * 19 // 20]:.0f}"
    yield f"a browser gets {rate[1]:.1f} KiB/s in {pushes:.1f} pushes/s; with a key {rate[0]:.1f} KiB/s"
    yield f"the writer's commit of {per_s:,} events takes {writing:.2f} times as long as without the page"


def main() -> None:
    """Print what the page costs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--keys", type=int, default=1_000)
    parser.add_argument("--per-s", type=int, default=5_000)
    parser.add_argument("--seconds", type=int, default=60)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        for line in measure(Path(directory), given.keys, given.per_s, given.seconds):
            print(line, flush=True)


if __name__ == "__main__":
    main()
