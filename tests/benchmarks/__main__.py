"""Every benchmark of speed, one after the other: ``make bench``. What they print goes to a file, too.

Each runs in a process of its own and compares its two sides there. A quarter of an hour; those of Kafka need a broker.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import cyclopts

MODULES = ("core_step", "rivals", "growth", "sqlite_path", "kafka_throughput", "latency", "alarm_rate")
PACKAGES = ("streamlstm", "numpy", "numba", "torch", "msgspec", "kafka-python", "confluent-kafka", "river")


def processor() -> str:
    """Return the processor's name, as far as the machine says it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names) or os.cpu_count()} × {names[0] if names else platform.processor() or platform.machine()}"


def main(*, out: Path = Path("bench.txt")) -> None:
    """Run all benchmarks and write what they print.

    Parameters
    ----------
    out
        The file to write.
    """
    failed = []
    with out.open("w") as file:
        installed = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
        print(f"{processor()}, {platform.system()}, Python {platform.python_version()}\n{installed}", file=file)
        for module in MODULES:
            print(f"{module} …", flush=True)
            command = [sys.executable, "-m", f"tests.benchmarks.{module}"]
            done = subprocess.run(command, text=True, stdout=subprocess.PIPE, check=False)
            print(done.stdout, flush=True)
            print(f"\n## {' '.join(['python', *command[1:]])}\n\n{done.stdout}", file=file, flush=True)
            if done.returncode:
                failed.append(module)
    print(f"written to {out}")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    cyclopts.run(main)
