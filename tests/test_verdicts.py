"""The table of an export: signs and directions of what it tells, and what is said of variants that are not used."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from headstart import verdicts
from headstart.core.errors import NothingAccepted, Problem
from headstart.terminal import THEME


def variant(name: str, **own: Any) -> dict[str, Any]:
    interval = {"value": -0.012, "low": -0.03, "high": 0.006}
    return {
        "name": name,
        "bytes": 2_500_000,
        "score": {"value": 0.9},
        "difference": interval,
        "agreement": {"value": 0.975},
        "speed": {"one": {"p50_ms": 1.25, "p95_ms": 12.5}, "rows_a_second": 640.0},
        "times_as_long": 0.5,
        "refused": "",
        "too_few": False,
        "batches": True,
        "threshold": None,
        **own,
    }


def shown(tmp_path: Path, *variants: dict[str, Any], accepted: tuple[str, ...] = ()) -> str:
    """What ``show`` prints of an export with these variants."""
    verdict = {
        "metric": "macro_f1",
        "reference": {"value": 0.912},
        "data": {"rows": 81, "modality": "image"},
        "tolerance": 0.005,
        "variants": list(variants),
        "gone": [],
        "accepted": list(accepted),
    }
    (tmp_path / "verdict.json").write_text(json.dumps(verdict), encoding="utf-8")
    console = Console(file=io.StringIO(), theme=THEME, width=200, no_color=True, highlight=False)

    def work() -> Path:
        if not accepted:
            raise NothingAccepted("none", problems=[Problem("none was accepted", str(tmp_path))])
        return tmp_path

    if accepted:
        verdicts.told(console, work)
    else:
        with pytest.raises(NothingAccepted):
            verdicts.told(console, work)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_line_tells_losses_as_losses_and_half_the_time_as_twice_as_fast(tmp_path: Path) -> None:
    text = shown(tmp_path, variant("onnxruntime fp32"), accepted=("onnxruntime fp32",))
    line = next(line for line in text.splitlines() if line.startswith("onnxruntime"))
    assert " ".join(line.split()) == "onnxruntime fp32 2.5 90.0 % -1.2 [-3.0, +0.6] 97.5 1.25/12.5 640 2.00x ✓ used"
    assert "change, n = 81" in text
    assert "headstart predict" in text


def test_what_was_refused_or_rests_on_few_rows_is_said_of_each(tmp_path: Path) -> None:
    refused = variant("openvino int8", refused="macro f1 falls by 1.20 points", too_few=True, batches=False)
    few, alone = variant("onnxruntime int8", too_few=True), variant("openvino fp32", batches=False)
    text = shown(tmp_path, refused, few, alone, accepted=("onnxruntime int8", "openvino fp32"))
    assert "✗ openvino int8: macro f1 falls by 1.20 points" in text
    assert "81 validation rows are too few to tell a loss of 0.5 points from none: onnxruntime int8\n" in text
    assert "\nopenvino fp32: together, answers would depend" in text


def test_the_table_is_shown_where_nothing_was_accepted_too(tmp_path: Path) -> None:
    text = shown(tmp_path, variant("openvino int8", refused="takes 3.00 times as long"))
    assert "✗ refused" in text
    assert "headstart predict" not in text


def test_a_threshold_says_on_how_many_rows_it_rests(tmp_path: Path) -> None:
    precision = {"value": 0.96, "low": 0.9, "high": 0.99, "n": 50}
    sure = {"value": 0.8, "wanted": 0.95, "precision": precision, "coverage": 0.625}
    text = shown(tmp_path, variant("a", threshold=sure), variant("b", threshold=sure), accepted=("b", "a"))
    told = 'below 0.800 the answer is "don\'t know": 62 % are answered, right in 0.960 [0.900, 0.990] of 50 rows'
    assert text.count(told) == 1
    none = {"value": 1.1, "wanted": 0.99, "precision": None, "coverage": 0.0}
    assert "no row is sure enough for 0.99" in shown(tmp_path, variant("a", threshold=none), accepted=("a",))
