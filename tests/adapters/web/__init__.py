"""Tests of the live page over HTTP."""
