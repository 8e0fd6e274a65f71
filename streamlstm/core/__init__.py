"""The pure core: no clock, file, network, log, environment or global state.

An event walks through it in the order of the files: ``event`` (bytes to columns), ``feature``
(columns to model inputs), ``state`` (a key's row), ``step`` (one LSTM step), ``forecast`` (what
the model expects next), ``channels`` and ``score`` (how unusual), ``threshold`` (how unusual for
this key lately), ``alert`` (the episode it belongs to), ``commit`` (all that must be stored
together). ``advance`` runs the numeric part of that walk; ``scorer`` is its front door.
"""
