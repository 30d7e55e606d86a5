"""What earlier runs found out, in a small JSON file of the cache folder: by key, the oldest forgotten first."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from headstart.core import manifest

MOST = 1000  # answers in one file


class Remembered:
    """Answers (JSON values) by key; a missing or damaged file holds none."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def get(self, key: str) -> Any:
        """The answer, or None."""
        return self._all().get(key)

    def put(self, key: str, answer: Any) -> None:
        kept = {other: value for other, value in self._all().items() if other != key}
        kept = dict(list(kept.items())[-(MOST - 1) :])
        with contextlib.suppress(OSError):
            manifest.write_json(self.file, {**kept, key: answer})

    def _all(self) -> dict[str, Any]:
        try:
            found = json.loads(self.file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}
