"""Soak: ``python -m tests.soak --minutes 60``, on SQLite; ``--kafka`` on a broker of its own.

A feed of several keys goes on without a pause, with poison, duplicates and late records in it. One scorer is killed,
stopped and halted at random; another one is only halted, and its memory is watched; with ``--kafka`` the broker is
killed and halted, too. At the end every output is compared with that of a plain run of the core over the same input:
nothing lost, nothing doubled, every bit equal.

``KAFKA_HOME`` names an unpacked Kafka 4 for ``--kafka``; Java 17 is needed.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tests.kafka_broker import NoBroker
from tests.soak.ground import KafkaGround, SqliteGround, new_directory
from tests.soak.soak import Plan, Soak, Verdict


def main() -> None:
    """Run a soak; end with 1 if anything is not as it should be."""
    options = argparse.ArgumentParser(
        prog="python -m tests.soak", description="Soak: faults at random, then the oracle."
    )
    options.add_argument("--minutes", type=float, default=60.0)
    options.add_argument("--kafka", action="store_true", help="on a broker of its own, which is killed, too")
    options.add_argument("--rate", type=float, default=100.0, help="events a second, over all keys")
    options.add_argument("--seed", type=int, default=None, help="of feed and faults; from the clock unless given")
    options.add_argument("--page", type=Path, default=Path("out/soak.html"), help="the plot")
    given = options.parse_args()
    seed = int(time.time()) % 1_000_000 if given.seed is None else given.seed
    print(f"soak on {'Kafka' if given.kafka else 'SQLite'} for {given.minutes:g} minutes; --seed {seed}", flush=True)
    plan = Plan(60 * given.minutes, given.rate, seed, given.page)
    try:
        with new_directory() as directory, (KafkaGround if given.kafka else SqliteGround)(Path(directory)) as ground:
            verdict = Soak(ground, plan, lambda line: print(line, flush=True)).run()
    except NoBroker as missing:
        sys.exit(str(missing))
    tell(verdict, given.page)
    sys.exit(1 if verdict.problems else 0)


def tell(verdict: Verdict, page: Path) -> None:
    """Print what was shown."""
    print(
        f"records: {verdict.appended}; among them {verdict.troubles.total()} bad ones of {len(verdict.troubles)} kinds"
    )
    print("faults: " + ", ".join(f"{count} × {kind}" for kind, count in sorted(verdict.faults.items())))
    if line := verdict.memory:
        print(
            f"memory of the scorer that lived: {line.mean_mib:.0f} MiB, {line.slope_mib_per_h:+.1f} ± "
            f"{line.error_mib_per_h:.1f} MiB an hour ({line.growth:+.1%} since the warm-up); {page}"
        )
    for problem in verdict.problems:
        print(f"PROBLEM: {problem}")
    if not verdict.problems:
        print("nothing lost, nothing doubled, every bit as in a plain run; memory flat")


if __name__ == "__main__":
    main()
