"""A run has its folder for itself, and is not lost to what comes after its stages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import headstart
from headstart.core import storage
from headstart.core.errors import ArtefactError, TrainingError
from headstart.core.events import Notice
from headstart.data.modalities.image import ImageSpec
from headstart.workflows import finish

HOLD = """
import sys, time
from pathlib import Path
from headstart.core import storage
with storage.claimed(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such locks")
@pytest.mark.parametrize("folds", [None, 2])
def test_another_process_in_the_folder_is_told_and_left_alone(fit: Any, pictures: Any, folds: int | None) -> None:
    own = {} if folds is None else {"folds": folds}
    run = fit(pictures(36), **own)
    (run.path / ("result.json" if folds is None else "folds.json")).unlink()
    half = run.path / ".model.tmp-1"
    half.mkdir()
    with subprocess.Popen([sys.executable, "-c", HOLD, str(run.path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ArtefactError, match="another process works in this folder"):
            fit(pictures(36), **own)
        assert half.is_dir(), "what the other one writes is not taken for a leftover"
        other.kill()
    again = fit(pictures(36), **own)  # the system let go of it
    assert again.path == run.path
    assert not half.exists()


def test_a_folder_is_let_go(tmp_path: Path) -> None:
    for _ in range(2):
        with (
            storage.claimed(tmp_path),
            pytest.raises(ArtefactError, match="another process"),
            storage.claimed(tmp_path),
        ):
            pass


class Fussy(nn.Module):
    """What is nearly white gives no number."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = ImageSpec(size=(32, 32), resize=32)
        self.conv = nn.Conv2d(3, 8, 5, stride=4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        white = (images.mean((1, 2, 3), keepdim=True) > 2.0).float()
        return self.conv(images).relu() + torch.where(white > 0, torch.nan, 0.0)


@pytest.mark.parametrize("plan", ["probe", ["probe", {"thaw": {"blocks": 1, "epochs": 1, "views": 1}}]])
def test_test_rows_without_an_answer_cost_the_score_and_not_the_run(fit: Any, pictures: Any, plan: Any) -> None:
    values, labels = pictures(12, 2)
    values = np.array(values)
    values[3] = 255
    data = {"train": pictures(36), "val": pictures(12, 1), "test": (values, labels)}
    run = fit(data, plan, backbone=Fussy())
    (told,) = [each for each in fit.said(Notice) if each.kind == "test"]
    assert "not finite" in told.message
    assert any(each.message.startswith("no test row was judged") for each in fit.said(Notice))
    assert run.read("result.json")["metrics"]["test"] is None
    assert (run.path / "report.html").is_file()
    assert headstart.load(run, allow_module=Fussy()).predict([values[0]])


def test_a_training_row_without_an_answer_is_named(fit: Any, pictures: Any) -> None:
    values, labels = pictures(36)
    values = np.array(values)
    values[5] = 255
    with pytest.raises(TrainingError, match="features of 1 rows are not finite") as caught:
        fit((values, labels), backbone=Fussy(), normalisation_check=True)
    assert "precision=fp32" not in caught.value.problems[0].remedy, "that is what it was"


def test_folds_tell_which_rows_were_not_judged(fit: Any, pictures: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_given: object) -> None:
        raise TrainingError("the features of 1 rows are not finite")

    monkeypatch.setattr(finish, "_answers", fails)
    with pytest.raises(TrainingError, match="the rows of fold-1, fold-2 were not judged"):
        fit(pictures(36), folds=2)
