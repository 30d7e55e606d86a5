"""The nursery is imported by name, also by the fork server and the lives that come from it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

HERE = str(Path(__file__).parent)
sys.path.insert(0, HERE)
# The fork server starts as a fresh interpreter and knows only this.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [HERE, os.environ.get("PYTHONPATH")]))

import nursery  # noqa: E402


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted life, with ``changes.json``: what it changed in the file system, in order."""
    folder = tmp_path_factory.mktemp("whole")
    life = nursery.Life(folder, trace=True)
    assert life.end() == 0, life.log()
    assert nursery.strays(folder) == []
    return folder
