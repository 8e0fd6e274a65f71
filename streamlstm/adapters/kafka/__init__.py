"""Apache Kafka behind the log port. Read ``log``, ``session``, ``restore``, then the clients."""
