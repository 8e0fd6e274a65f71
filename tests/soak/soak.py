"""The loop: feed, harm, look, and at the end the verdict."""

from __future__ import annotations

import heapq
import itertools
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.soak.feed import Feed
from tests.soak.ground import Ground, Process, pause
from tests.soak.memory import Line, Samples, draw, resident_mib

TICK_S = 0.1
SAMPLE_EVERY_S = 1.0
TELL_EVERY_S = 5.0
CALM_S = (0.5, 9.0)  # between two faults
STOPPED_S = (0.1, 7.0)  # of a process or a broker; a session lasts 4
DRAIN_S = 300.0
LAST_LINES = 12  # of a scorer that ended by itself
KILL, TERM, STOP = "killed (-9)", "stopped and restarted (TERM)", "halted (STOP, CONT)"


@dataclass(frozen=True)
class Plan:
    """``events_per_s``: of the feed, over all keys. ``seed``: of the feed and of the faults."""

    seconds: float
    events_per_s: float
    seed: int
    page: Path
    keys_per_partition: int = 3


@dataclass
class Verdict:
    """What a soak has shown. ``problems`` is empty if all is well."""

    appended: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    troubles: Counter[str] = field(default_factory=Counter)
    memory: Line | None = None
    problems: list[str] = field(default_factory=list)


class Soak:
    """One soak on one ground; :meth:`run` does it."""

    def __init__(self, ground: Ground, plan: Plan, tell: Callable[[str], None] = print) -> None:
        self._ground, self._plan, self._tell = ground, plan, tell
        self._chance = random.Random(plan.seed)
        self._feed = Feed(plan.seed, plan.keys_per_partition, ground.partitions)
        self._members: dict[str, Process] = {}
        self._halted: set[str] = set()
        self._later: list[tuple[float, int, Callable[[], object]]] = []
        self._number = itertools.count()
        self._events: list[tuple[float, str]] = []
        self._memory = {"mortal": Samples(), "steady": Samples()}
        self._behind = Samples()
        self._verdict = Verdict()
        self._done = 0

    def run(self) -> Verdict:
        """Feed and harm for the plan's time, let the scorers finish, and judge. Ctrl-C ends the time."""
        self._started_s = time.monotonic()
        for name in self._memory:
            self._start(name)
        try:
            self._harm_and_feed()
        except KeyboardInterrupt:
            self._tell("interrupted: the verdict on what was so far")
        self._heal()
        self._drain()
        self._judge()
        return self._verdict

    def _now_s(self) -> float:
        return time.monotonic() - self._started_s

    def _harm_and_feed(self) -> None:
        steps_per_s = self._plan.events_per_s / self._feed.keys
        next_fault_s, next_sample_s, next_line_s = 3.0, 0.0, TELL_EVERY_S
        while (now_s := self._now_s()) < self._plan.seconds:
            records = []
            while self._feed.step < now_s * steps_per_s:
                records += self._feed.next_step()
                if len(records) > 1000:
                    break
            if records:
                self._ground.append(records)
                self._verdict.appended += len(records)
            while self._later and self._later[0][0] <= now_s:
                heapq.heappop(self._later)[2]()
            if now_s >= next_fault_s:
                self._fault(now_s)
                next_fault_s = self._now_s() + self._chance.uniform(*CALM_S)
            if now_s >= next_sample_s:
                self._look(now_s)
                next_sample_s = now_s + SAMPLE_EVERY_S
            if now_s >= next_line_s:
                self._tell_progress(now_s)
                next_line_s = now_s + TELL_EVERY_S
            pause(TICK_S)

    def _start(self, name: str) -> None:
        self._members[name] = self._ground.start(name, self._chance.randrange(2, 200))

    def _fault(self, now_s: float) -> None:
        """Let one thing happen, at random."""
        outages = self._ground.outages()
        name = "mortal"
        kind = self._chance.choice([KILL, KILL, KILL, TERM, STOP, STOP, *outages])
        if kind == STOP:
            name = self._chance.choice(sorted(self._members))
        if name in self._halted or (kind in outages and "log" in self._halted):
            return
        self._verdict.faults[kind] += 1
        self._events.append((now_s, kind))
        until_s = now_s + self._chance.uniform(*STOPPED_S)
        if kind in outages:
            begin, end = outages[kind]
            begin()
            self._halted.add("log")
            self._at(until_s, end, "log")
        elif kind == STOP:
            self._members[name].send(signal.SIGSTOP)
            self._halted.add(name)
            self._at(until_s, lambda: self._members[name].send(signal.SIGCONT), name)
        else:
            self._restart(name, signal.SIGKILL if kind == KILL else signal.SIGTERM)

    def _at(self, at_s: float, end: Callable[[], object], halted: str) -> None:
        def over() -> None:
            end()
            self._halted.discard(halted)

        heapq.heappush(self._later, (at_s, next(self._number), over))

    def _restart(self, name: str, number: signal.Signals) -> None:
        process = self._members[name]
        if process.alive:
            process.send(number)
            status = process.wait()
            if status not in (0, -number):
                self._verdict.problems.append(f"{name} ended with {status} after {number.name}")
        self._start(name)

    def _look(self, now_s: float) -> None:
        """Take samples; start a scorer again that ended by itself, and hold that against it."""
        for name, process in self._members.items():
            if not process.alive:
                said = "\n".join(process.output.splitlines()[-LAST_LINES:])
                self._verdict.problems.append(f"{name} ended by itself with {process.wait()} at {now_s:.0f} s:\n{said}")
                self._tell(self._verdict.problems[-1])
                self._start(name)
            elif name not in self._halted:
                self._memory[name].add(now_s, resident_mib(process.pid))
        if "log" not in self._halted:
            self._done = self._ground.done()
        self._behind.add(now_s, self._ground.copies * self._verdict.appended - self._done)

    def _tell_progress(self, now_s: float) -> None:
        faults = ", ".join(f"{count} {kind}" for kind, count in sorted(self._verdict.faults.items()))
        memory = self._memory["steady"].mib
        self._tell(
            f"{now_s:5.0f} s  {self._verdict.appended} records in, {self._behind.mib[-1]:.0f} behind, "
            f"{memory[-1] if memory else 0:.0f} MiB; {faults or 'no fault yet'}"
        )

    def _heal(self) -> None:
        while self._later:
            heapq.heappop(self._later)[2]()

    def _drain(self) -> None:
        """Let the scorers come to the end of the feed, and stop them."""
        wanted, until_s = self._ground.copies * self._verdict.appended, time.monotonic() + DRAIN_S
        while (done := self._ground.done()) < wanted and time.monotonic() < until_s:
            self._look(self._now_s())
            pause(TICK_S)
        if done != wanted:
            self._verdict.problems.append(f"{wanted} records, but {done} outcomes after {DRAIN_S:.0f} s of calm")
        for name, process in self._members.items():
            process.send(signal.SIGTERM)
            if status := process.wait():
                self._verdict.problems.append(f"{name} ended with {status} after SIGTERM")

    def _judge(self) -> None:
        verdict = self._verdict
        verdict.troubles = self._feed.troubles
        self._tell("comparing every output with a plain run, event by event …")
        try:
            self._ground.check()
        except AssertionError as wrong:
            verdict.problems.append(f"the outputs are not those of a plain run: {str(wrong)[:2000]}")
        try:
            verdict.memory = line = self._memory["steady"].line()
        except ValueError as few:
            verdict.problems.append(f"memory: {few}")
        else:
            if not line.flat:
                verdict.problems.append(f"memory grew by {line.growth:.1%} while nothing more had to be kept")
        title = f"Soak, seed {self._plan.seed}: {verdict.appended:,} records, {verdict.faults.total()} faults"
        draw(self._plan.page, title, self._memory, self._behind, self._events)
