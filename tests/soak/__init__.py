"""The soak: a feed without end, faults at random moments, and the oracle at the end. ``make soak``."""
