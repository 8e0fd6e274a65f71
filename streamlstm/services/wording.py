"""Words for people: a number with its noun, a score over its threshold."""

from __future__ import annotations


def counted(number: float, noun: str) -> str:
    """Return ``1 alarm``, ``2 alarms``, ``0.5 alarms``."""
    shown = f"{number:g}" if isinstance(number, float) else str(number)
    return f"{shown} {noun}{'' if number == 1 else 's'}"


def over(score: float, threshold: float) -> str:
    """Return ``4.2 over 3.9``, with as many digits as it takes to tell them apart, five at most."""
    digits = next((n for n in range(1, 5) if f"{score:.{n}f}" != f"{threshold:.{n}f}"), 5)
    return f"{score:.{digits}f} over {threshold:.{digits}f}"
