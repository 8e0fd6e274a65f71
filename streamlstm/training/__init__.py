"""From history to bundle: scale, fit, calibrate, report. Imports the core only; torch lives here."""
