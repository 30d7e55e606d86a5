"""One predictor that only reads, for all tests of the server."""

from __future__ import annotations

from pathlib import Path

import pytest

from headstart.deploy.predictor import Predictor


@pytest.fixture(scope="session")
def predictor(exported: Path) -> Predictor:
    return Predictor(exported, threads=1)
