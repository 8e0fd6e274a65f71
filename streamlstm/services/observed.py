"""A session that tells an observer what happens to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress

from streamlstm.core.commit import Commit
from streamlstm.core.log import Record, ScorerSession, Standing
from streamlstm.core.observer import NOBODY, Observer
from streamlstm.errors import LogUnavailable

LAG_EVERY_S = 10.0  # on Kafka it is a question to the brokers


def observed(session: ScorerSession, observer: Observer) -> ScorerSession:
    """Return the session, watched if anybody wants to know."""
    return session if observer is NOBODY else ObservedSession(session, observer)


class ObservedSession:
    """A :class:`~streamlstm.core.log.ScorerSession` that does what the one in it does, and tells ``observer``.

    ``clock`` gives seconds and never goes back.
    """

    def __init__(
        self, session: ScorerSession, observer: Observer, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._session, self._observer, self._clock = session, observer, clock
        self._lag_s = clock()

    def poll(self, max_records: int, timeout_s: float) -> Sequence[Record]:
        """Poll, and tell how it went; before it, now and then, how much is still to come."""
        started_s = self._clock()
        if started_s - self._lag_s >= LAG_EVERY_S:
            self._lag_s = started_s
            with suppress(LogUnavailable):  # the poll will say so too
                self._observer.lagging(self._session.lag())
            started_s = self._clock()
        records = self._session.poll(max_records, timeout_s)
        seconds = self._clock() - started_s
        self._observer.polled(records, seconds, self._session.claims(), self._session.standing())
        return records

    def commit(self, commit: Commit) -> None:
        """Commit, and tell how long it took."""
        started_s = self._clock()
        self._session.commit(commit)
        self._observer.committed(commit, self._clock() - started_s)

    def claims(self) -> Mapping[int, int]:
        """As the session."""
        return self._session.claims()

    def standing(self) -> Standing:
        """As the session."""
        return self._session.standing()

    def lag(self) -> Mapping[int, int]:
        """As the session."""
        return self._session.lag()

    def load_states(self, keys: Iterable[tuple[int, bytes]]) -> Mapping[tuple[int, bytes], bytes]:
        """As the session."""
        return self._session.load_states(keys)

    def watermarks(self) -> Mapping[int, int]:
        """As the session."""
        return self._session.watermarks()

    def rewind(self) -> None:
        """As the session."""
        self._session.rewind()

    def close(self) -> None:
        """As the session."""
        self._session.close()
