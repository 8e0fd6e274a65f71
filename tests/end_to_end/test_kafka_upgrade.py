"""Upgrades as deploy/README.md says to do them, with processes on a broker: every record is scored once, bit for bit.

A "release" is the same code with other settings that may change no bit: how much it polls, how many keys it keeps.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable
from pathlib import Path

import msgspec

from streamlstm.adapters.bundle_files import write_bundle
from tests.end_to_end import kafka_runs
from tests.end_to_end.kafka_runs import Fleet, Running, Stream, assert_exactly_once, load

INSTANCES = ("scorer-0", "scorer-1", "scorer-2")
OLD = {"poll_records": 40, "max_keys": 1_000}
NEW = {"poll_records": 150, "max_keys": 2}


def start_all(fleet: Fleet, **release: object) -> dict[str, Running]:
    """Start every instance at once, and wait until each has partitions."""
    found = {name: fleet.start(name, **release) for name in INSTANCES}
    fleet.wait_until(lambda: settled(fleet, found.values()))
    return found


def settled(fleet: Fleet, processes: Iterable[Running]) -> bool:
    """Whether each process has partitions, and together they have all."""
    owned = [process.partitions for process in processes]
    return all(owned) and sum(map(len, owned)) == fleet.stream.partitions


def stop(process: Running) -> None:
    """Stop one as a supervisor does."""
    process.send(signal.SIGTERM)
    assert process.wait() == 0, process.output


def roll(fleet: Fleet, running: dict[str, Running], **release: object) -> None:
    """Replace one process after the other, the last first, each when the one before is ready: as a StatefulSet does."""
    for name in reversed(INSTANCES):
        stop(running[name])
        running[name] = fleet.start(name, **release)
        fleet.wait_until(lambda: settled(fleet, running.values()))


def test_rolling_upgrade_and_rollback_under_load(stream: Stream, fleet: Fleet) -> None:
    """Three scorers go to another release one by one, one does not start, and all go back."""
    records = kafka_runs.feed(700)
    with load(stream, records, per_s=200):
        running = start_all(fleet, **OLD)
        fleet.wait_for(100)
        roll(fleet, running, **NEW)

        stop(running["scorer-2"])
        broken = fleet.start("scorer-2", model=Path("/nowhere"))
        assert broken.wait() == 1
        others = [running["scorer-0"], running["scorer-1"]]
        fleet.wait_until(lambda: settled(fleet, others))
        fleet.wait_for(fleet.done + 50)

        running["scorer-2"] = fleet.start("scorer-2", **OLD)
        fleet.wait_until(lambda: settled(fleet, running.values()))
        roll(fleet, running, **OLD)
        assert fleet.done < len(records), "there was no load any more"
    fleet.wait_for(len(records))
    fleet.stop_all()
    assert_exactly_once(stream)


def test_new_bundle_and_back(stream: Stream, fleet: Fleet, tmp_path: Path) -> None:
    """All stop, all start with another bundle, whose keys start anew; then the same with the bundle before."""
    other = msgspec.structs.replace(stream.bundle, band=2 * stream.bundle.band)
    write_bundle(other, tmp_path / "bundle-2", "")
    records, then = kafka_runs.feed(400), []
    with load(stream, records, per_s=200):
        running = start_all(fleet)
        for bundle, directory in ((other, tmp_path / "bundle-2"), (stream.bundle, stream.model)):
            fleet.wait_for(fleet.done + 300)
            for process in running.values():
                process.send(signal.SIGTERM)
            assert [process.wait() for process in running.values()] == [0, 0, 0]
            then.append(({partition: at for partition, (at, _) in stream.committed().items()}, bundle))
            running = start_all(fleet, model=directory, on_model_change="reset")
        assert fleet.done < len(records), "there was no load any more"
    fleet.wait_for(len(records))
    fleet.stop_all()
    assert_exactly_once(stream, then=then)


def test_new_bundle_that_meets_old_states_ends_instead_of_mixing(stream: Stream, fleet: Fleet, tmp_path: Path) -> None:
    """Why a bundle is no rolling upgrade: whoever gets states of the other bundle says so, and writes nothing."""
    other = msgspec.structs.replace(stream.bundle, band=2 * stream.bundle.band)
    write_bundle(other, tmp_path / "bundle-2", "")
    stream.append(kafka_runs.feed(60))
    stream.score_here()
    new = fleet.start("scorer-0", model=tmp_path / "bundle-2")
    stream.append(kafka_runs.feed(70)[len(kafka_runs.feed(60)) :])
    assert new.wait() == 1
    assert f"has a state of bundle '{stream.bundle.name}', not of '{other.name}'" in new.output
    old = fleet.start("scorer-0")
    fleet.wait_for(len(kafka_runs.feed(70)))
    stop(old)
    assert_exactly_once(stream)
