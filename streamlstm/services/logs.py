"""Log lines on standard error: for people, or a JSON object each."""

from __future__ import annotations

import sys

import structlog

from streamlstm.services.settings import LogFormat


def log_to_stderr(form: LogFormat) -> None:
    """Write log lines in this form from now on; ``auto`` is for people on a terminal, else JSON."""
    people = sys.stderr.isatty() if form == "auto" else form == "console"
    structlog.configure(
        processors=[structlog.processors.add_log_level, *(_for_people() if people else _as_json())],
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )


def as_json() -> bool:
    """Return whether log lines are JSON now."""
    return isinstance(structlog.get_config()["processors"][-1], structlog.processors.JSONRenderer)


def _for_people() -> list[structlog.typing.Processor]:
    return [
        structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
        # rich's tracebacks would show local variables, passwords among them
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback),
    ]


def _as_json() -> list[structlog.typing.Processor]:
    return [
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(ensure_ascii=False, default=str),
    ]
