"""Tests; they mirror the package's rooms."""
