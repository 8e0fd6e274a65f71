"""What an operator sees of kafka-python's own log.

It tries again by itself whatever can be tried again, and says each time at level ERROR, often with a traceback, that
it had to. What it could not mend reaches us as an exception, and is told once. So little of it is shown:

- nothing about connections: :mod:`~streamlstm.adapters.kafka.failures` says in one line why a broker is out of reach;
- nothing about errors that the library itself calls retriable, or fatal: those reach us;
- of the rest, warnings and errors, as one line without traceback, and the same line once a minute.

No level below WARNING is ever shown: DEBUG lines hold the options of a client, and the bytes of its log-in.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable

import structlog

REPEAT_S = 60.0
SHOWN_CHARACTERS = 300
CONNECTIONS = "kafka.net"
THREADS = "kafka.net.selector"  # where it says that a thread of its own came to an end
# What comes of a lost connection, and what reaches us as an exception.
UNTOLD = re.compile("no node available|fatal|authoriz", re.IGNORECASE)

logger = structlog.get_logger()


class LibraryLog(logging.Handler):
    """Hands a library's log on to ours."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(logging.WARNING)
        self._clock = clock
        self._shown_s: dict[tuple[str, int], float] = {}
        self._unshown: dict[tuple[str, int], int] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Show a record, unless the same line of code said something a moment ago."""
        if record.name.startswith(CONNECTIONS) and (record.name != THREADS or record.levelno < logging.ERROR):
            return
        said = record.args if isinstance(record.args, tuple) else ()
        error, text = record.exc_info[1] if record.exc_info else None, " ".join(record.getMessage().split())
        if UNTOLD.search(text) or any(getattr(about, "retriable", False) for about in (*said, error)):
            return
        place, now_s = (record.name, record.lineno), self._clock()
        if now_s - self._shown_s.get(place, -REPEAT_S) < REPEAT_S:
            self._unshown[place] = self._unshown.get(place, 0) + 1
            return
        self._shown_s[place] = now_s
        if error is not None:
            text += f" ({type(error).__name__}: {' '.join(str(error).split())})"
        more = self._unshown.pop(place, 0)
        logger.warning("kafka-python", says=text[:SHOWN_CHARACTERS], **({"repeated": more} if more else {}))


def show_library_log() -> None:
    """Show what kafka-python logs; without a handler, Python would print all of it from WARNING on."""
    library = logging.getLogger("kafka")
    if not any(isinstance(handler, LibraryLog) for handler in library.handlers):
        library.addHandler(LibraryLog())
