"""Feeds that behave like the real thing, with the truth kept apart from the events."""
