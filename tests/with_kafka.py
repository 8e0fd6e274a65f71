"""Run a command with a Kafka broker: ``python -m tests.with_kafka COMMAND…``; BOOTSTRAP in it becomes the address.

The broker is the one at ``KAFKA_BOOTSTRAP``, or one of ``KAFKA_HOME``, or one in Docker, and ends with the command.
"""

from __future__ import annotations

import subprocess
import sys

from tests.kafka_broker import NoBroker, find_broker


def main() -> int:
    """Return the command's exit status."""
    try:
        broker = find_broker()
    except NoBroker as missing:
        print(missing, file=sys.stderr)
        return 1
    print("starting a Kafka broker …", file=sys.stderr)
    with broker:
        return subprocess.call([word.replace("BOOTSTRAP", broker.bootstrap) for word in sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
