"""From polled records to transactions: the order, what runs beside what, and what is left after a fault."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from streamlstm.core.commit import Commit
from streamlstm.core.log import Record, ScorerSession
from streamlstm.core.scorer import Outcome, Poll, Scorer
from streamlstm.errors import BadRecords, LogUnavailable
from streamlstm.services.pipeline import score_polled
from tests import builders

MOST = 25
PATIENCE_S = 30.0


class Session:
    """The parts of a session that are used: stores in memory; refuses to be used by two threads at a time."""

    def __init__(self) -> None:
        self.commits: list[Commit] = []
        self.threads: list[str] = []
        self.states: dict[tuple[int, bytes], bytes] = {}
        self.faults: dict[int, Exception] = {}
        self.before_commit: Callable[[], None] = lambda: None
        self._used = threading.Lock()

    def load_states(self, keys: Iterable[tuple[int, bytes]]) -> Mapping[tuple[int, bytes], bytes]:
        """Return the states of these keys."""
        assert self._used.acquire(blocking=False), "a commit is under way"
        found = {key: self.states[key] for key in keys if key in self.states}
        self._used.release()
        return found

    def commit(self, commit: Commit) -> None:
        """Store a commit, or fail."""
        with self._used:
            self.threads.append(threading.current_thread().name)
            self.before_commit()
            if fault := self.faults.get(len(self.threads)):
                raise fault
            self.commits.append(commit)
            self.states |= {key: row.value for key, row in commit.states.items()}


def records() -> list[Record]:
    """Return events of five keys in one partition."""
    return builders.make_feed(40, ("a", "b", "c", "d", "e"))


def score(
    session: Session, *, most: int = MOST, max_keys: int = 100, refused: int = -1, scorer: Scorer | None = None
) -> list[Outcome]:
    """Score all records; return what was told as stored."""
    stored: list[Outcome] = []
    asked = iter(range(1, 1_000))

    def check(_: Outcome) -> None:
        if next(asked) == refused:
            raise BadRecords("too many")

    used: ScorerSession = session  # type: ignore[assignment]
    scorer = scorer or Scorer(builders.bundle(), max_keys=max_keys)
    try:
        with ThreadPoolExecutor(1, "commit") as beside:
            score_polled(used, scorer, records(), most, beside, check=check, stored=stored.append)
    finally:
        assert [outcome.poll.records[-1].offset + 1 for outcome in stored] == [
            commit.offsets[0][1] for commit in session.commits
        ], "what is told is what was stored, in order"
    return stored


@pytest.mark.parametrize("max_keys", [100, 5, 2])
@pytest.mark.parametrize("most", [1, 7, MOST, 199, 200, 1_000])
def test_transactions_hold_the_same_bytes_however_many_there_are(most: int, max_keys: int) -> None:
    """Also where keys leave memory while the transaction with their states is under way."""
    whole, parts = Session(), Session()
    score(whole, most=10_000)
    score(parts, most=most, max_keys=max_keys)
    assert [output for commit in parts.commits for output in commit.scores] == whole.commits[0].scores
    assert [output for commit in parts.commits for output in commit.alerts] == whole.commits[0].alerts
    assert parts.states == whole.states
    edges = [commit.offsets[0] for commit in parts.commits]
    assert [first for first, _ in edges] == [0, *(following for _, following in edges[:-1])]
    assert all(following - first <= most for first, following in edges)


def test_next_events_are_read_while_a_transaction_is_stored() -> None:
    """Each but the last ends only when those that follow it were read."""
    session, scorer, ahead = Session(), Scorer(builders.bundle()), threading.Semaphore(0)
    plain_read = scorer.read

    def read(records: Sequence[Record]) -> Poll:
        if records[0].offset > 0:
            ahead.release()
        return plain_read(records)

    def wait_for_the_next() -> None:
        if threading.current_thread() is not threading.main_thread():
            assert ahead.acquire(timeout=PATIENCE_S)

    scorer.read = read  # type: ignore[method-assign]
    session.before_commit = wait_for_the_next
    score(session, most=50, scorer=scorer)
    assert [name.startswith("commit") for name in session.threads] == [True, True, True, False]


def test_records_of_one_transaction_are_stored_without_another_thread() -> None:
    """The way of a stream that is not behind is as short as it can be."""
    session = Session()
    score(session, most=200)
    assert session.threads == [threading.current_thread().name]


@pytest.mark.parametrize("fails", [1, 2, 8])
def test_transaction_that_fails_is_the_last(fails: int) -> None:
    """Nothing is stored that would follow it, nor told."""
    session = Session()
    session.faults = {fails: LogUnavailable("gone")}
    with pytest.raises(LogUnavailable, match="gone"):
        score(session)
    assert (len(session.threads), len(session.commits)) == (fails, fails - 1)


@pytest.mark.parametrize("begun", [1, 2, 7])
def test_stop_leaves_out_the_transactions_that_were_not_begun(begun: int) -> None:
    """Those that were are stored, and told."""
    session, told = Session(), []
    used: ScorerSession = session  # type: ignore[assignment]
    asked = iter([False] * (begun - 1) + [True])
    scorer = Scorer(builders.bundle())
    with ThreadPoolExecutor(1, "commit") as beside:
        score_polled(used, scorer, records(), MOST, beside, stored=told.append, stop=lambda: next(asked))
    assert len(session.commits) == len(told) == begun


@pytest.mark.parametrize("refused", [1, 3, 8])
def test_events_that_are_refused_come_after_all_before_them_is_stored(refused: int) -> None:
    """The transaction under way is waited for, and told."""
    session = Session()
    with pytest.raises(BadRecords):
        score(session, refused=refused)
    assert len(session.commits) == refused - 1


def test_fault_of_the_transaction_under_way_counts_before_that_of_the_next_events() -> None:
    """They will come again; what was stored before them decides how they are scored."""
    session = Session()
    session.faults = {2: LogUnavailable("gone")}
    with pytest.raises(LogUnavailable):
        score(session, refused=3)
    assert len(session.commits) == 1
