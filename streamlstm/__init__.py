"""A streaming anomaly detector: an LSTM whose state moves with the stream's offsets."""

__version__ = "0.1.0"
