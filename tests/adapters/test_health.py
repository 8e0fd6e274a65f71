"""Started, alive, ready: three questions with different answers."""

from __future__ import annotations

from streamlstm.adapters.health import Health
from streamlstm.core.log import Standing

IDLE = Standing(joined=True, restoring={})


class Clock:
    """A clock that goes on when told to."""

    now_s = 100.0

    def __call__(self) -> float:
        """Return the time (s)."""
        return self.now_s


def answers(health: Health) -> tuple[bool, bool, bool]:
    """Return started, alive, ready."""
    return not health.not_started(), not health.not_alive(), not health.not_ready()


def test_process_before_its_first_poll_is_alive_and_not_started() -> None:
    """Kubernetes waits for it, up to the bound that holds for every turn."""
    clock = Clock()
    health = Health(60.0, clock)
    assert answers(health) == (False, True, False)
    clock.now_s += 61
    assert answers(health) == (False, False, False)


def test_process_that_polls_is_started_alive_and_ready_also_without_a_partition() -> None:
    """A stand-by has nothing to do, and is ready to do it: else a rolling upgrade would wait for ever."""
    health = Health(60.0, Clock())
    health.polled(IDLE)
    assert answers(health) == (True, True, True)


def test_process_outside_its_group_or_restoring_is_alive_and_not_ready() -> None:
    """It will be; nobody should restart it for that."""
    health = Health(60.0, Clock())
    health.polled(Standing(joined=False, restoring={}))
    assert (answers(health), health.not_ready()) == ((True, True, False), "not in the group yet")
    health.polled(Standing(joined=True, restoring={4: 100, 1: None}))
    assert (answers(health), health.not_ready()) == ((True, True, False), "reading states of partitions 1, 4")
    health.polled(IDLE)
    assert answers(health) == (True, True, True)


def test_process_whose_log_is_away_is_alive_for_as_long_as_it_tries() -> None:
    """A restart brings no broker back. Ready again is only who committed what it polled."""
    clock = Clock()
    health = Health(60.0, clock)
    health.polled(IDLE)
    for _ in range(10):
        clock.now_s += 30
        health.unavailable()
        assert answers(health) == (True, True, False)
    health.polled(IDLE)
    assert answers(health) == (True, True, False)
    health.available()
    assert answers(health) == (True, True, True)


def test_process_whose_loop_stands_still_is_neither_alive_nor_ready() -> None:
    """It answers probes from another thread, and that is no sign of life."""
    clock = Clock()
    health = Health(60.0, clock)
    health.polled(IDLE)
    clock.now_s += 60
    assert answers(health) == (True, True, True)
    clock.now_s += 1
    assert answers(health) == (True, False, False)
    assert health.not_alive() == "no turn of the loop for 61 s"
