"""Every error streamlstm raises on purpose.

::

    StreamlstmError
    ├── SettingsError        an option, TOML key or environment variable is wrong
    ├── SchemaError          the stream schema is wrong, or the data does not match it
    ├── HistoryError         the training history cannot be learned from
    ├── BadRecords           too many records in a row cannot be decoded
    ├── BundleError          a model bundle is missing, damaged, or does not fit the stream
    └── LogError             the event log cannot do what was asked
        ├── TopicMissing     no such topic
        ├── OffsetExpired    the wanted offset was removed by retention
        ├── PartitionBusy    another live scorer owns the partition
        ├── Fenced           another scorer committed in between: this one must stop
        └── LogUnavailable   a passing fault (locked, full, unreachable): wait and try again

Bad *data* never raises: it is a value (:class:`streamlstm.core.event.Rejection`) on its way to
the dead-letter topic. A bad *environment* raises one of these, and the message says what to do.
"""


class StreamlstmError(Exception):
    """Base of all errors that end a command with one clear sentence."""


class SettingsError(StreamlstmError):
    """An option, TOML key or environment variable is unknown or out of range."""


class SchemaError(StreamlstmError):
    """The stream schema is malformed, or a file's columns do not match it."""


class HistoryError(StreamlstmError):
    """The training history is too short, constant or otherwise not learnable."""


class BadRecords(StreamlstmError):
    """So many records in a row cannot be decoded that the schema or the producer must be wrong."""


class BundleError(StreamlstmError):
    """A model bundle is missing, damaged, of another format, or does not fit the stream."""


class LogError(StreamlstmError):
    """The event log cannot do what was asked."""


class TopicMissing(LogError):
    """The topic does not exist."""


class OffsetExpired(LogError):
    """The offset to continue from was removed by retention; continuing would lose events."""


class PartitionBusy(LogError):
    """Another live scorer owns the partition."""


class Fenced(LogError):
    """Another scorer committed this partition in between; nothing of this one's work is kept."""


class LogUnavailable(LogError):
    """The log cannot be reached or written for the moment; nothing was committed."""
