"""The port through which services say what they do: metrics and health listen, and nothing depends on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from streamlstm.core import delivery
from streamlstm.core.budget import Promised
from streamlstm.core.bundle import Bundle
from streamlstm.core.commit import Commit
from streamlstm.core.log import Record, Standing
from streamlstm.core.scorer import Outcome


class Observer:
    """Takes no notice of anything; observers override what they want to know.

    Called after the fact, by one thread at a time. A method must return soon and must not raise.
    """

    def polled(self, records: Sequence[Record], seconds: float, claims: Mapping[int, int], standing: Standing) -> None:
        """Note a poll, also one without records, with the claims and the standing after it."""

    def lagging(self, lag: Mapping[int, int]) -> None:
        """Note how many offsets of each claimed partition are still to be polled; asked for now and then."""

    def committed(self, commit: Commit, seconds: float) -> None:
        """Note a transaction that was stored, and how long that took."""

    def unavailable(self) -> None:
        """Note that the log is out of reach; called again at each new try."""

    def available(self) -> None:
        """Note that the log answered, and took what there was to commit."""

    def scored(self, outcome: Outcome, keys: int, row_bytes: int, evicted: int) -> None:
        """Note events that were scored and committed.

        ``keys`` in memory, ``row_bytes`` of their rows, and how many were ``evicted`` since the last restart.
        """

    def restarted(self, bundle: Bundle, promised: Promised) -> None:
        """Note a scorer that knows no key yet: at the start, and after the log was out of reach."""

    def tried(self, record: Record, outcome: delivery.Outcome, seconds: float) -> None:
        """Note what became of a request that took so long."""

    def given_up(self, letters: Sequence[delivery.DeadLetter]) -> None:
        """Note alerts that became dead letters."""

    def waiting(self, alerts: int, receiver_down: bool) -> None:
        """Note how many alerts wait to be delivered, and whether the receiver is taken for down."""


NOBODY = Observer()
