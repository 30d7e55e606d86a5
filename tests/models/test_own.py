"""The user's own network: its mistakes are told with their place and remedy; its specs are at the front door."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import headstart
from headstart.core.errors import BackboneError, ConfigError, HeadstartError
from headstart.data.texts import vocabulary
from headstart.models import backbone as backbones

from .. import words as words_of_tests
from . import sounds_zoo

NET = """
import headstart
import torch
from torch import nn


class Net(nn.Module):
    {spec}

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv1d(1, 4, 32, 8), nn.Conv1d(4, 6, 8, 4))
        {made}

    def forward(self, wave):
        {forward}
        return self.layers(wave[:, None]).transpose(1, 2)


def make():
    {returned}
"""
SOUND = "spec = headstart.AudioSpec(rate=8_000)"


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes ``nets.py`` with something changed, and loads ``nets.make``."""

    def load(spec: str = SOUND, made: str = "", forward: str = "", returned: str = "return Net()", **own: Any) -> Any:
        code = NET.format(spec=spec, made=made, forward=forward, returned=returned)
        (tmp_path / "nets.py").write_text(code, encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "nets", raising=False)
        try:
            return backbones.load("nets.make", **own)
        finally:
            sys.modules.pop("nets", None)

    return load


def test_a_module_that_is_right(written: Any) -> None:
    backbone = written(made="self.blocks = ('layers.0', 'layers.1'); self.feature_dim = 6")
    assert (backbone.modality, backbone.feature_dim, backbone.blocks) == ("audio", 6, ("layers.0", "layers.1"))


@pytest.mark.parametrize(
    ("planted", "where", "told"),
    [
        ({"spec": "spec = headstart.AudioSpec"}, "nets.make.spec", "its spec is the class AudioSpec"),
        ({"spec": "spec = {'rate': 8000}"}, "nets.make.spec", "its spec is a dict"),
        ({"spec": "spec = headstart.AudioSpec(rate='8k')"}, "AudioSpec", "rate is '8k' (str), not int"),
        ({"spec": "spec = headstart.AudioSpec(100)"}, "nets.py:8", "a rate of 100 samples"),
        ({"spec": "spec = headstart.AudioSpec(rates=8000)"}, "nets.py:8", "unexpected keyword argument 'rates'"),
        ({"spec": "spec = headstart.TextSpec('bert-base-uncased')"}, "tokenizer.json", "Path('tokenizer.json')"),
        ({"spec": "import pathlib; spec = headstart.TextSpec(pathlib.Path('t'))"}, "TextSpec", "not str"),
        ({"spec": "spec = headstart.ImageSpec(size=64)"}, "ImageSpec", "size is '64' (int), not tuple"),
        ({"spec": "spec = ("}, "nets.py:", "SyntaxError"),
        ({"spec": ""}, "nets.py:17", "says so: spec = headstart.AudioSpec"),
        ({"made": "self.layers[2]"}, "nets.py:13", "IndexError"),
        ({"forward": "wave = self.missing(wave)"}, "nets.py:16", "no attribute 'missing'"),
        ({"forward": "return None"}, "backbone", "returns a NoneType"),
        ({"forward": "return wave.sum()"}, "backbone", "which are no features"),
        ({"forward": "return wave[:0, :3]"}, "backbone", "of 1 rows, which are no features"),
        ({"made": "self.feature_dim = 7"}, "feature_dim", "gives 6 features"),
        ({"made": "self.blocks = ('layers.0', 'layer.1')"}, "nets.make.blocks", "did you mean 'layers.1'"),
        ({"returned": "return 3"}, "backbone", "returns a int, not a torch module"),
        ({"returned": "import nowhere_at_all"}, "nets.py:21", "No module named 'nowhere_at_all'"),
    ],
)
def test_mistakes_are_told_with_their_place(written: Any, planted: dict[str, str], where: str, told: str) -> None:
    with pytest.raises(HeadstartError) as caught:
        written(**planted)
    (problem,) = caught.value.problems
    assert problem.where.endswith(where) or (where.endswith(":") and where in problem.where)
    assert told in str(caught.value)


def test_a_module_that_is_not_found_says_how_it_would_be() -> None:
    with pytest.raises(BackboneError, match=r"PYTHONPATH=\. headstart"):
        backbones.load("no_such_lab.nets.small")


def test_a_class_is_no_network() -> None:
    with pytest.raises(BackboneError, match=r"the class Linear\n.*backbone=Net\(\)"):
        backbones.load(nn.Linear)  # type: ignore[arg-type]


class Patient(nn.Module):
    """Hears nothing in less than 0.73 s."""

    spec = headstart.AudioSpec(rate=8_000)

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv1d(1, 4, 5_840)

    def forward(self, wave: Tensor) -> Tensor:
        return self.layer(wave[:, None]).transpose(1, 2)


def test_too_short_a_window_names_the_shortest() -> None:
    with pytest.raises(BackboneError, match=r"shortest window that it takes is 0\.8 s: seconds=0\.8"):
        backbones.load(Patient(), seconds=0.3)
    assert backbones.load(Patient(), seconds=0.8).feature_dim == 4


class Reads(nn.Module):
    """Knows so many words, and so many places."""

    def __init__(self, words: int, places: int) -> None:
        super().__init__()
        self.spec = headstart.TextSpec(words_of_tests.tokenizer(), max_length=32)
        self.words, self.places = nn.Embedding(words, 4), nn.Embedding(places, 4)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.words(input_ids) + self.places(torch.arange(input_ids.shape[1]))


@pytest.mark.parametrize(("words", "places", "right"), [(60, 32, True), (59, 32, False), (60, 31, False)])
def test_a_table_that_is_too_small_is_told_before_a_rare_word_tells(words: int, places: int, right: bool) -> None:
    size = vocabulary.reader(words_of_tests.tokenizer()).get_vocab_size()
    module = Reads(size - 60 + words, places)
    if right:
        assert backbones.load(module).feature_dim == 4
        return
    with pytest.raises(BackboneError, match="index out of range") as caught:
        backbones.load(module)
    assert "any id of the tokenizer" in caught.value.problems[0].remedy


@pytest.mark.parametrize(("family", "seconds"), [("whisper", 0.5), ("ast", 2.0)])
def test_a_window_that_a_family_cannot_hear_is_refused(family: str, seconds: float, tmp_path: Path) -> None:
    folder = sounds_zoo.saved(family, tmp_path)
    with pytest.raises(BackboneError, match="leave it out") as caught:
        backbones.load(str(folder), seconds=seconds)
    assert caught.value.problems[0].where == "data.seconds"


def test_what_fails_on_the_users_rows_only_is_told_too() -> None:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 4, 8, 8)

        def forward(self, pictures: Tensor) -> Tensor:
            if len(pictures) > 1:
                raise ValueError("one at a time")
            return self.layer(pictures)

    backbone = backbones.load(Reader(), image_size=16)
    with pytest.raises(BackboneError, match="ValueError: one at a time") as caught:
        backbone.verify(torch.zeros(2, 3, 16, 16))
    assert "test_own.py:" in caught.value.problems[0].where


def test_every_field_of_a_spec_that_is_wrong_is_told() -> None:
    with pytest.raises(ConfigError) as caught:
        headstart.AudioSpec(rate="8k", seconds="2", form=3)  # type: ignore[arg-type]
    assert [problem.what.partition(" ")[0] for problem in caught.value.problems] == ["rate", "seconds", "form"]


def test_the_specs_come_through_the_door_without_torch() -> None:
    code = "import sys; from headstart import AudioSpec, ImageSpec, TextSpec; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
