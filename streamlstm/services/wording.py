"""Words for people: a number with its noun."""

from __future__ import annotations


def counted(number: float, noun: str) -> str:
    """Return ``1 alarm``, ``2 alarms``, ``0.5 alarms``."""
    shown = f"{number:g}" if isinstance(number, float) else str(number)
    return f"{shown} {noun}{'' if number == 1 else 's'}"
