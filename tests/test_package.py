"""What is installed: the wheel holds the built-in weights with their cards, and stays small."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from headstart.core.manifest import sha256
from headstart.models import shipped

ROOT = Path(__file__).resolve().parents[1]
MEGABYTE = 10**6
FILES = {
    "image": ("card.json", "model.safetensors"),
    "text": ("card.json", "model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"),
    "audio": ("card.json", "model.safetensors"),
}


def test_every_modality_has_its_weights_and_they_are_small() -> None:
    assert shipped.names() == tuple(sorted(FILES))
    for name, files in FILES.items():
        assert {file.name for file in (shipped.FOLDER / name).iterdir()} == set(files)
        card = shipped.card(name)
        assert sha256(card.weights()) == card.sha256
        assert card.licence == "Apache-2.0"
        assert card.scores
        script = ROOT / str(card.facts["script"])
        assert script.is_file(), "what made them is here"
        assert 1e6 < card.parameters < 4e6
    everything = sum(file.stat().st_size for file in shipped.FOLDER.rglob("*") if file.is_file())
    assert everything <= 15 * MEGABYTE


def test_the_weights_are_halves_without_a_head() -> None:
    from headstart.models import weights

    for name in shipped.names():
        state = weights.read(shipped.card(name).weights())
        assert sum(value.numel() for value in state.values()) == shipped.card(name).parameters
        assert {str(value.dtype) for value in state.values() if value.is_floating_point()} == {"torch.float16"}
        assert not any(key.startswith(("classifier.", "head.", "heads.", "cls.", "fc.")) for key in state)


@pytest.mark.slow
def test_the_wheel_holds_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hatchling import build

    monkeypatch.chdir(ROOT)
    wheel = tmp_path / build.build_wheel(str(tmp_path))
    assert wheel.stat().st_size < 18 * MEGABYTE
    with zipfile.ZipFile(wheel) as opened:
        inside = set(opened.namelist())
        for name, files in FILES.items():
            assert {f"headstart/builtin/{name}/{file}" for file in files} <= inside
            card = json.loads(opened.read(f"headstart/builtin/{name}/card.json"))
            assert card["sha256"] == shipped.card(name).sha256
    assert not any(name.startswith(("pretraining/", "tests/", "benchmarks/")) for name in inside)
