"""A stage for tests of the live page: a log, a scorer that is called when wanted, and the dashboard as a process."""

from __future__ import annotations

import re
import select
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from streamlstm.adapters.sqlite_log import SqliteLog
from streamlstm.core import feedback
from streamlstm.core.log import NewRecord
from streamlstm.services import scorer
from streamlstm.services.settings import ScoreSettings
from tests import builders
from tests.end_to_end.runs import start

ADDRESS = re.compile(r"http://\S+:\d+/")
SCRIPT = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
KEYS = ("pump-01", "pump-02", "pump-03", "boiler & <b>valve</b>", "mixer", SCRIPT)
STARTS_S = 60.0


class Stage:
    """A log in a directory, with a topic of :data:`builders.SCHEMA`; each step is an event of each key, a second on."""

    def __init__(self, directory: Path, model: Path) -> None:
        self.directory, self.model = directory, model
        self.path = directory / "log.db"
        self.step = 0
        self.start_ms = (int(time.time()) - 1_200) * 1_000
        log = SqliteLog(self.path)
        log.create_topic("events", 2)
        log.close()

    def feed(self, steps: int, keys: Sequence[str] = KEYS, **spikes: float) -> None:
        """Append events of each key; ``spikes`` are flows of the last step, by key."""
        records = []
        for record in builders.make_feed(steps, keys, start=self.step, partitions=2):
            event = msgspec.json.decode(record.value)
            event["time"] += self.start_ms - builders.START_MS
            last = event["time"] == self.start_ms + (self.step + steps - 1) * builders.STEP_MS
            if last and event["sensor"] in spikes:
                event["flow"] = spikes[event["sensor"]]
            key, partition = event["sensor"].encode(), list(KEYS).index(event["sensor"]) % 2
            records.append(NewRecord(key, msgspec.json.encode(event), (), partition))
        self.step += steps
        self.append("events", records)

    def append(self, topic: str, records: Sequence[NewRecord]) -> None:
        """Append to a topic that exists."""
        log = SqliteLog(self.path)
        log.append(topic, records)
        log.close()

    def score(self, **settings: Any) -> None:
        """Score what is there, as ``streamlstm score --explain all --until-end`` does."""
        chosen = {"until_end": True, "explain": "all", "alarm_rate": 1e-4, **settings}
        log = SqliteLog(self.path)
        scorer.run(log, builders.bundle(), ScoreSettings(**chosen), threading.Event())
        log.close()

    def feedback(self) -> list[feedback.FeedbackRecord]:
        """Return what people have said."""
        log = SqliteLog(self.path)
        found = [feedback.decode(r.value) for p in (0, 1) for r in log.read("events.feedback", p, 0, 1_000)]
        log.close()
        return found


class Dashboard:
    """The dashboard as a process; ``address`` is where it serves."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.address = _address(process)

    @property
    def port(self) -> int:
        """The port."""
        return int(self.address.rstrip("/").rpartition(":")[2])


@contextmanager
def dashboard(stage: Stage, *options: object, **more: object) -> Iterator[Dashboard]:
    """Run ``streamlstm dashboard`` on a stage; it must end with status 0 when asked to."""
    arguments = ["--log", f"sqlite:///{stage.path}", "--model", stage.model, "--alarm-rate", "1e-4"]
    process = start("streamlstm", "dashboard", *arguments, *(options or ("--port", 0)), **more)  # type: ignore[arg-type]
    try:
        yield Dashboard(process)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=STARTS_S)
    assert process.returncode in (0, -signal.SIGKILL), errors


def _address(process: subprocess.Popen[str]) -> str:
    """Wait for the line that says where it serves."""
    assert process.stderr is not None
    until_s, said = time.monotonic() + STARTS_S, ""
    while time.monotonic() < until_s and process.poll() is None:
        if select.select([process.stderr], [], [], 0.5)[0]:
            said += process.stderr.readline()
            if found := ADDRESS.search(said):
                return found[0]
    process.kill()
    raise AssertionError(said + process.communicate()[1])
