"""What a scorer did: counted, told, and judged where most of it went wrong."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import structlog

from streamlstm.core.budget import FEW, Budget, in_digits, judged
from streamlstm.core.event import Rejection
from streamlstm.core.scorer import Outcome
from streamlstm.errors import BadRecords

logger = structlog.get_logger()


class DeadLetterWatch:
    """Warns when most records become dead letters: once, until most are scored again."""

    def __init__(self) -> None:
        self._events = 0
        self._reasons: Counter[str] = Counter()
        self._examples: dict[str, Rejection] = {}
        self._warned = False

    def add(self, outcome: Outcome) -> None:
        """Take a committed poll in."""
        self._events += len(outcome.poll.records)
        for rejection in outcome.rejections:
            self._reasons[rejection.reason] += 1
            self._examples.setdefault(rejection.reason, rejection)

    def tell(self) -> None:
        """Judge what came in since this was last called."""
        mostly = 2 * self._reasons.total() > self._events
        if mostly and not self._warned:
            ((reason, count),) = self._reasons.most_common(1)
            record, _, detail = self._examples[reason]
            logger.warning(
                "most records become dead letters",
                dead_letters=self._reasons.total(),
                events=self._events,
                mostly=f"{reason} {count}",
                example=f"{record.topic} partition {record.partition} offset {record.offset}: {detail}",
            )
        self._warned = mostly
        self._events, self._reasons, self._examples = 0, Counter(), {}


@dataclass
class Totals:
    """What a scorer did since it started; ``reasons`` counts the dead letters by reason, ``watched_ms`` is the event
    time of all keys together.
    """

    budget: Budget
    events: int = 0
    scored: int = 0
    dead_letters: int = 0
    opened: int = 0
    resolved: int = 0
    watched_ms: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)
    _watch: DeadLetterWatch = field(default_factory=DeadLetterWatch, repr=False, compare=False)

    def add(self, outcome: Outcome) -> None:
        """Count a committed poll."""
        self.events += len(outcome.poll.records)
        self.scored += outcome.scored
        self.dead_letters += len(outcome.rejections)
        self.opened += sum(alert.action == "opened" for alert in outcome.alerts)
        self.resolved += sum(alert.action == "resolved" for alert in outcome.alerts)
        self.watched_ms += outcome.watched_ms
        self.reasons.update(rejection.reason for rejection in outcome.rejections)
        self._watch.add(outcome)

    @property
    def realised(self) -> str:
        """What became of the promise, as ``1.3 per key per week, promised 1``; a count while few were due.

        An alert in the first minute is not 1,440 a day.
        """
        due = self.budget.due(self.watched_ms)
        telling = judged(self.opened, due)
        found = self.budget.realised(self.opened, self.watched_ms)
        if found is None or due < FEW:
            words = "more than promised" if telling == "more" else "too few to tell"
            return f"{self.opened} opened, {in_digits(due)} due, {words}; promised {self.budget}"
        more = ": more than by chance" if telling == "more" else ""
        return f"{in_digits(found)} per key per {self.budget.unit}, promised {in_digits(self.budget.alarms)}{more}"

    def tell(self, line: str, **more: object) -> None:
        """Log a line with the counts, and warn if most records since the last one became dead letters."""
        counts = {name: count for name, count in vars(self).items() if isinstance(count, int)}
        if self.reasons:
            more["dead_letter_reasons"] = ", ".join(f"{reason} {n}" for reason, n in self.reasons.most_common())
        logger.info(line, **counts, alerts=self.realised, **more)
        self._watch.tell()


class BadRecordCap:
    """Stops a scorer before it commits the last of too many records in a row that cannot be decoded."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._in_a_row = self._committed = 0

    def check(self, outcome: Outcome) -> None:
        """Count records that are not committed yet; one that can be decoded starts the count anew."""
        self._in_a_row = _bad_in_a_row(self._in_a_row, outcome)
        if self._in_a_row >= self._most:
            record, reason, detail = outcome.poll.rejections[0]
            raise BadRecords(
                f"{self._in_a_row} records in a row cannot be decoded; first of the last: topic {record.topic!r} "
                f"partition {record.partition} offset {record.offset}: {reason}: {detail}. They are not committed. "
                "Mend the producer, or score with the right schema and bundle; to make dead letters of all of them, "
                "raise --max-bad-records"
            )

    def commit(self, outcome: Outcome) -> None:
        """Note that these were committed."""
        self._committed = _bad_in_a_row(self._committed, outcome)

    def go_back(self) -> None:
        """Forget what was not committed: it comes again."""
        self._in_a_row = self._committed


def _bad_in_a_row(before: int, outcome: Outcome) -> int:
    bad = len(outcome.poll.rejections)
    return before + bad if bad == len(outcome.poll.records) else 0
