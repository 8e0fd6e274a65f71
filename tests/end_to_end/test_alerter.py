"""The alerter as its users run it: a process of its own, a real receiver, real time.

A longer outage: ``ALERTER_OUTAGE_S=60 pytest tests/end_to_end/test_alerter.py``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from streamlstm.adapters.signature import signature
from streamlstm.adapters.sqlite_log import SqliteLog
from tests.alerts import append_alerts, committed, dead_letters, make_alerts
from tests.receiver import Answer, Receiver, Request

OUTAGE_S = float(os.environ.get("ALERTER_OUTAGE_S", "2"))
SECRET = "0123456789abcdef0123456789abcdef"


class Alerter:
    """The command line in a process of its own."""

    def __init__(self, directory: Path, receiver: Receiver, *options: str, **variables: str) -> None:
        self.directory = directory
        self.options = ["--log", f"sqlite:///{directory / 'log.db'}", *options]
        self.environment: Mapping[str, str] = {
            **{name: value for name, value in os.environ.items() if not name.startswith("STREAMLSTM_")},
            "STREAMLSTM_LOG_FORMAT": "console",
            "STREAMLSTM_WEBHOOK": receiver.url,
            "STREAMLSTM_WEBHOOK_SECRET": SECRET,
            **variables,
        }

    def start(self) -> subprocess.Popen[str]:
        """Start it."""
        return subprocess.Popen(
            [sys.executable, "-m", "streamlstm", "alert", *self.options],
            cwd=self.directory,
            env=self.environment,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self) -> tuple[int, str]:
        """Run it to its end; return the exit status and what it logged."""
        with self.start() as process:
            _, logged = process.communicate(timeout=60 + 3 * OUTAGE_S)
        return process.returncode, logged


def make_log(directory: Path, alerts: int) -> list[tuple[str, int]]:
    """Make a log with alerts of five keys in two partitions; return key and offset of each."""
    made = make_alerts(alerts, ("a", "b", "c", "d", "e"), partitions=2)
    with closing(SqliteLog(directory / "log.db")) as log:
        append_alerts(log, made, partitions=2)
    return [(alert.key, alert.offset) for alert in made]


def by_key(alerts: Iterable[tuple[str, int]]) -> dict[str, list[int]]:
    """Return the offsets per key, in order."""
    found: dict[str, list[int]] = {}
    for key, offset in alerts:
        found.setdefault(key, []).append(offset)
    return found


def received(requests: Sequence[Request]) -> dict[str, list[int]]:
    """Return the offsets per key, in the order in which each came first."""
    first = {request.headers["Idempotency-Key"]: json.loads(request.body)["alert"] for request in reversed(requests)}
    return by_key((alert["key"], alert["offset"]) for alert in reversed(first.values()))


def test_alert_killed_at_any_moment_loses_none_and_keeps_the_order(tmp_path: Path) -> None:
    """Killed six times, before and after answers, it delivers every alert at least once, in order per key."""
    made = make_log(tmp_path, 120)
    running: list[subprocess.Popen[str]] = []
    kill_before_answer, kill_after_answer = {1, 30, 70}, {2, 50, 110}

    def answer(request: Request) -> Answer:
        if request.number in kill_before_answer:
            running[-1].kill()
        return Answer()

    def answered(request: Request) -> None:
        if request.number in kill_after_answer:
            running[-1].kill()

    with Receiver(answer) as receiver:
        receiver.answered = answered
        alerter = Alerter(tmp_path, receiver, "--until-end")
        statuses: list[int] = []
        while not statuses or (statuses[-1] == -signal.SIGKILL and len(statuses) < 20):
            with alerter.start() as process:
                running.append(process)
                process.communicate(timeout=60)
            statuses.append(process.returncode)

    assert statuses == [-signal.SIGKILL] * 6 + [0]
    assert received(receiver.requests) == by_key(made)
    assert len(receiver.requests) < 120 + 6 * 60, "a few are sent again, not all"
    with closing(SqliteLog(tmp_path / "log.db")) as log:
        assert committed(log) == {0: 72, 1: 48}
        assert dead_letters(log) == []


def test_alert_receiver_down_for_seconds_delivers_all_in_order_afterwards(tmp_path: Path) -> None:
    """Nobody listens; then somebody does, and gets everything, signed, without a stampede."""
    made = make_log(tmp_path, 300)
    lock, together, most = threading.Lock(), 0, 0

    def answer(request: Request) -> Answer:
        nonlocal together, most
        with lock:
            together += 1
            most = max(most, together)
        return Answer()

    def answered(request: Request) -> None:
        nonlocal together
        with lock:
            together -= 1

    receiver = Receiver(answer)
    receiver.answered = answered
    with Alerter(tmp_path, receiver, "--until-end", "--connections", "3").start() as process:
        assert process.stderr is not None
        logged = ""
        for line in process.stderr:
            logged += line
            if "receiver is down" in line:
                break
        time.sleep(OUTAGE_S)
        receiver.start()
        try:
            logged += process.communicate(timeout=60 + 3 * OUTAGE_S)[1]
        finally:
            receiver.__exit__(None, None, None)

    assert process.returncode == 0, logged
    assert received(receiver.requests) == by_key(made)
    assert len(receiver.requests) == 300
    assert most <= 3
    assert logged.index("receiver is down") < logged.index("receiver is up again")
    for request in receiver.requests:
        sent_s = request.headers["Streamlstm-Signature"].partition(",")[0].removeprefix("t=")
        assert request.headers["Streamlstm-Signature"] == signature(request.body, [SECRET.encode()], float(sent_s))
    for secret in (SECRET, "/in"):
        assert secret not in logged


def test_alert_terminated_with_a_hanging_receiver_commits_and_ends(tmp_path: Path) -> None:
    """SIGTERM: what was delivered is committed, what hangs is abandoned, the exit status is 0."""
    make_log(tmp_path, 10)
    hanging = threading.Event()

    def answer(request: Request) -> Answer:
        if request.number == 3:
            hanging.set()
        return Answer(hang=request.number >= 3)

    with (
        Receiver(answer) as receiver,
        Alerter(tmp_path, receiver, "--connections", "1", "--timeout-s", "1").start() as process,
    ):
        assert hanging.wait(60)
        process.send_signal(signal.SIGTERM)
        _, logged = process.communicate(timeout=60)

    assert process.returncode == 0, logged
    with closing(SqliteLog(tmp_path / "log.db")) as log:
        assert sum(committed(log).values()) == 2


def test_alert_dead_letters_sent_again_arrive(tmp_path: Path) -> None:
    """The way of the one on call: alerts were refused, the receiver is mended, the letters are sent again."""
    made = make_log(tmp_path, 20)
    with Receiver(lambda request: Answer(400 if request.number <= 20 else 200, b"no such field")) as receiver:
        status, logged = Alerter(tmp_path, receiver, "--until-end").run()
        assert status == 0
        assert logged.count("alert given up, now a dead letter") == 20
        assert "no such field" in logged
        status, logged = Alerter(tmp_path, receiver, "--resend-dead-letters").run()

    assert status == 0, logged
    assert received(receiver.requests[20:]) == by_key(made)


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"STREAMLSTM_WEBHOOK_SECRET": "short"}, "is shorter than 16 characters"),
        ({"STREAMLSTM_WEBHOOK": "pager-token"}, "must be an address"),
        ({"STREAMLSTM_WEBHOOK_SECRETS": SECRET}, "did you mean STREAMLSTM_WEBHOOK_SECRET?"),
    ],
)
def test_alert_wrong_settings_end_with_a_sentence_and_no_secret(
    tmp_path: Path, variables: dict[str, str], sentence: str
) -> None:
    """The message says what to do, and repeats no secret."""
    make_log(tmp_path, 1)
    status, logged = Alerter(tmp_path, Receiver(), **variables).run()

    assert status == 1
    assert sentence in " ".join(logged.split())
    assert SECRET not in logged
    assert "pager-token" not in logged
