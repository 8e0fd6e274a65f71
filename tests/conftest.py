"""Fixtures shared by all tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from streamlstm.adapters.bundle_files import write_bundle
from streamlstm.core.bundle import Bundle
from tests import builders

pytest_plugins = ["tests.browser_fixtures", "tests.kafka_fixtures"]

torch.set_num_threads(1)  # as the trainer does: several threads lose much on a busy machine


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    """A small trained bundle of :data:`builders.SCHEMA`."""
    return builders.bundle()


@pytest.fixture(scope="session")
def bundle_directory(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same bundle on disk."""
    directory = tmp_path_factory.mktemp("model") / "model"
    write_bundle(bundle, directory, "<html></html>")
    return directory
