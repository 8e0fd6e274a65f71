"""The soak in small: two minutes of faults here, more and on Kafka with ``make proof``, an hour with ``make soak``."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from streamlstm.adapters.sqlite_log import SqliteLog
from streamlstm.core.log import NewRecord
from tests.end_to_end.runs import assert_as_plain_run
from tests.kafka_fixtures import UNCLOSED
from tests.soak.feed import Feed
from tests.soak.ground import Ground, KafkaGround, SqliteGround
from tests.soak.memory import Samples
from tests.soak.soak import KILL, Plan, Soak, Verdict


def soak(ground: Ground, page: Path, seconds: float, seed: int) -> Verdict:
    """Run one; its lines are shown if the test fails."""
    return Soak(ground, Plan(seconds, 80.0, seed, page)).run()


def test_two_minutes_of_faults_lose_and_double_nothing(tmp_path: Path) -> None:
    """Kills, restarts and halts at random, poison in the feed; the plot is written."""
    with SqliteGround(tmp_path) as ground:
        verdict = soak(ground, tmp_path / "soak.html", 120.0, seed=4)
    assert verdict.problems == []
    assert verdict.faults[KILL] > 0
    assert verdict.appended > 1_000
    assert (tmp_path / "soak.html").stat().st_size > 10_000


@pytest.mark.proof
@pytest.mark.timeout(1_200)
@pytest.mark.filterwarnings(UNCLOSED)
@pytest.mark.parametrize("place", [SqliteGround, KafkaGround])
def test_minutes_of_faults_lose_and_double_nothing(
    place: Callable[[Path], SqliteGround | KafkaGround], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """On Kafka the broker is killed and halted, too."""
    if place is KafkaGround:
        request.getfixturevalue("kafka")  # skips where there is none
    with place(tmp_path) as ground:
        assert soak(ground, tmp_path / "soak.html", 180.0, seed=5).problems == []


def test_oracle_of_the_soak_notices_a_doubled_score(tmp_path: Path) -> None:
    """A soak that cannot fail would show nothing."""
    with SqliteGround(tmp_path) as ground:
        verdict = soak(ground, tmp_path / "soak.html", 4.0, seed=1)
        assert not [problem for problem in verdict.problems if not problem.startswith("memory")]
        log = SqliteLog(tmp_path / "soak.db")
        last = log.read("steady.scores", 0, 0, 10)[-1]
        log.append("steady.scores", [NewRecord(last.key, last.value, (), 0)])
        log.close()
        with pytest.raises(AssertionError):
            ground.check()
        assert_as_plain_run(tmp_path / "soak.db", "mortal")


def test_feed_of_a_seed_is_always_the_same_and_has_every_trouble() -> None:
    """So that a soak that failed can be run again."""
    feeds = [Feed(3, 2, 2) for _ in range(2)]
    first, second = ([record for _ in range(1500) for record in feed.next_step()] for feed in feeds)
    assert first == second
    assert len(feeds[0].troubles) == 11
    assert any(record.key == b"guest-0" for record in first)


@pytest.mark.parametrize(("growth_mib", "flat"), [(0.0, True), (4.0, True), (40.0, False)])
def test_line_through_memory_that_grows_is_not_flat(growth_mib: float, flat: bool) -> None:
    """The warm-up does not count; a gap where a process was halted is passed over."""
    samples = Samples()
    for second in range(3600):
        warm_up = 50.0 * min(1.0, second / 600)
        samples.add(second, None if second % 100 == 0 else 150.0 + warm_up + growth_mib * second / 3600)
    line = samples.line()
    assert math.isclose(line.slope_mib_per_h, growth_mib, abs_tol=0.1)
    assert line.flat == flat
