"""The audit of texts and sounds without a backbone: rows are read by a spec that needs none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

import headstart


def kinds(source: object) -> set[str]:
    _, found = headstart.audit(source)
    return {finding.kind for finding in found.findings}


def test_texts(tmp_path: Path) -> None:
    rows = [
        f"the {colour} {thing} was seen near the old bridge at {hour} today"
        for hour in range(6)
        for colour in ("red", "green")
        for thing in ("car", "boat")
    ]
    labels = ["car" if "car" in row else "boat" for row in rows]
    rows[3], labels[3] = rows[0], "boat"
    rows[5] = rows[5].replace("today", "CafÃ©")
    told = kinds([*zip(rows, labels, strict=True)])
    assert {"conflicting-labels", "garbled"} <= told
    assert not {"unknown-tokens", "truncated"} & told  # its own words are its vocabulary


def test_sounds(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for label in ("low", "high"):
        (tmp_path / label).mkdir()
        for index in range(8):
            tone = np.sin(np.arange(8000) * (0.05 if label == "low" else 0.3)) * rng.uniform(0.2, 0.6)
            soundfile.write(tmp_path / label / f"{index}.wav", tone + 0.05 * rng.standard_normal(8000), 8000)
    soundfile.write(tmp_path / "low" / "0.wav", np.zeros(8000), 8000)
    soundfile.write(tmp_path / "high" / "1.wav", np.sign(np.sin(np.arange(8000) * 0.3)), 8000)
    assert {"silent", "clipped"} <= kinds(tmp_path)
