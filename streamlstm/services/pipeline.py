"""From polled records to transactions: while one is stored, the events of the next are decoded and scored.

::

    thread that polls   decode 1 → score 1 → decode 2 → score 2 → wait → decode 3 → score 3 → wait → …
    beside it                                store 1 ──────────────────→ store 2 ──────────────────→ …

Nearly all of a transaction is waiting for a disk or a broker. The order is as without: transactions are stored one
after the other, and each begins where the one before ended. The scorer runs at most one of them ahead of the log, and
is thrown away if that fails: what is in the log is all that counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future

from streamlstm.core.commit import Commit
from streamlstm.core.log import Record, ScorerSession
from streamlstm.core.scorer import Outcome, Scorer

DEPTH = 4  # transactions that one poll becomes at most: of so many, all but the last are stored beside the next


class Writer:
    """Stores one commit at a time beside the thread that scores, and tells ``stored`` of each, in that thread."""

    def __init__(self, session: ScorerSession, beside: Executor, stored: Callable[[Outcome], None]) -> None:
        self._session, self._beside, self._stored = session, beside, stored
        self._under_way: tuple[Future[None], Outcome] | None = None

    def start(self, commit: Commit, outcome: Outcome) -> None:
        """Begin to store a commit; the one before must have been waited for."""
        self._under_way = self._beside.submit(self._session.commit, commit), outcome

    def wait(self) -> None:
        """Wait until nothing is under way; raises what kept it from being stored."""
        if self._under_way is not None:
            (future, outcome), self._under_way = self._under_way, None
            future.result()
            self._stored(outcome)


def score_polled(
    session: ScorerSession,
    scorer: Scorer,
    records: Sequence[Record],
    most: int,
    beside: Executor,
    *,
    check: Callable[[Outcome], None] = lambda _: None,
    stored: Callable[[Outcome], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Take polled records through the core and store what comes of them, ``most`` records in each transaction.

    ``beside`` has one thread, which lives as long as the session: what threads leave behind adds up.
    ``check`` may refuse what is about to be stored; ``stored`` is told what was. With ``stop`` the transactions that
    were not begun are left out, and the session is not to be polled again. It is used by one thread at a time. If this
    raises, the scorer may know more than the log: it is not to be used any more.
    """
    last = max(0, len(records) - 1) // most * most
    writer = Writer(session, beside, stored)
    for first in range(0, last + 1, most):
        if first > 0 and stop():
            break
        try:
            poll = scorer.read(records[first : first + most])
            missing = scorer.missing(poll)
            if missing:
                writer.wait()  # such a key's state may be among what is being stored
            outcome = scorer.score(poll, session.load_states(missing) if missing else {})
            check(outcome)
            commit = scorer.commit_of(outcome)
        finally:
            writer.wait()
        if first < last:
            writer.start(commit, outcome)
            scorer.accept(outcome)
        else:
            session.commit(commit)
            scorer.accept(outcome)
            stored(outcome)
    writer.wait()
