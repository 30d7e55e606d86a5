"""Backbones that ship: what their cards say, that damage is noticed, and what opens them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from headstart.core.errors import BackboneError
from headstart.models import backbone as backbones
from headstart.models import fresh, heads, saving, shipped
from headstart.models.catalogue import catalogue
from headstart.models.model import Model
from tests import standins

NAMES = ("image", "text", "audio")
FIRST = {"image": "conv1.0.weight", "text": "embeddings.word_embeddings.weight", "audio": "stem.0.weight"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return standins.write(tmp_path_factory.mktemp("builtin"))


@pytest.fixture(autouse=True)
def place(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(shipped, "FOLDER", made)
    return made


@pytest.mark.parametrize("name", NAMES)
def test_the_weights_are_those_of_the_folder(name: str, place: Path) -> None:
    backbone = backbones.load(f"builtin/{name}").eval()
    card = shipped.card(name)
    told = backbone.origin
    assert (told.uri, told.library, told.weights) == (f"builtin/{name}", "builtin", "pretrained")
    assert (told.licence, told.sha256, told.data) == ("Apache-2.0", card.sha256, card.data)
    stored = standins.weight(place / name, FIRST[name])
    assert torch.equal(backbone.module.state_dict()[FIRST[name]], stored.float())
    assert all(value.dtype == torch.float32 for value in backbone.parameters())
    assert backbone.verify(torch.from_numpy(backbone.spec.noise(3))).ok
    assert backbone.modality == name


@pytest.mark.parametrize("name", NAMES)
def test_without_them_it_is_the_same_network_with_seeded_random_weights(name: str) -> None:
    trained = backbones.load(f"builtin/{name}")
    first, again, other = (backbones.load(f"builtin/{name}", pretrained=False, seed=seed) for seed in (5, 5, 6))
    assert (first.origin.weights, first.origin.sha256, first.origin.data) == ("random", "", "")
    assert first.weights_hash() == again.weights_hash()
    assert len({trained.weights_hash(), first.weights_hash(), other.weights_hash()}) == 3
    assert first.spec == trained.spec
    assert first.blocks == trained.blocks
    shapes = [{key: value.shape for key, value in each.module.state_dict().items()} for each in (first, trained)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_model_needs_no_built_in_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = backbones.load(f"builtin/{name}").eval()
    backbone.verify(torch.from_numpy(backbone.spec.noise(3)))
    model = Model(backbone, heads.build("linear", backbone.feature_dim, 3, seed=0), "abc").eval()
    folder = model.save(tmp_path / "model")
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "nothing")
    loaded = saving.load(folder)
    inputs = torch.from_numpy(backbone.spec.noise(2))
    assert torch.equal(loaded(inputs), model(inputs))
    assert loaded.backbone.origin == backbone.origin
    assert backbone.origin.data in (folder / "README.md").read_text()
    fresh.reinitialise(loaded, 3)
    assert not torch.equal(loaded(inputs), model(inputs))


def test_a_picture_classifier_opens_in_timm(tmp_path: Path) -> None:
    import timm

    backbone = backbones.load("builtin/image").eval()
    model = Model(backbone, heads.build("linear", backbone.feature_dim, 3, seed=0), "abc").eval()
    folder = model.save(tmp_path / "model")
    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    pixels = torch.from_numpy(backbone.spec.noise(2))
    mean, std = (torch.tensor(values)[:, None, None] for values in (backbone.spec.mean, backbone.spec.std))
    with torch.no_grad():
        assert torch.allclose(theirs((pixels / 255 - mean) / std), model(pixels), atol=1e-5)
    assert tuple(theirs.pretrained_cfg["input_size"]) == (3, 64, 64)


def test_a_text_classifier_opens_in_transformers(tmp_path: Path) -> None:
    import transformers

    backbone = backbones.load("builtin/text", pooling="native").eval()
    model = Model(backbone, heads.build("linear", backbone.feature_dim, 3, seed=0), "abc").eval()
    folder = model.save(tmp_path / "model")
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokens = torch.from_numpy(backbone.spec.noise(2))
    with torch.no_grad():
        given = backbone.intake.given(tokens)
        assert torch.allclose(theirs(**given).logits, model(tokens), atol=1e-5)


def test_what_is_wanted_besides_the_name() -> None:
    grey = backbones.load("builtin/image", channels=1, image_size=32)
    assert (grey.spec.channels, grey.spec.size, grey.spec.resize) == (1, (32, 32), 32)
    colour = backbones.load("builtin/image", image_size=32).eval()
    picture = np.repeat(np.random.default_rng(0).integers(0, 255, (2, 1, 32, 32), dtype=np.uint8), 3, axis=1)
    plain = [backbones.load("builtin/image", channels=n, image_size=32).spec.mean for n in (1, 3)]
    assert plain[0] == pytest.approx((sum(plain[1]) / 3,))
    assert colour.features(torch.from_numpy(picture)).shape == (2, colour.feature_dim)
    assert backbones.load("builtin/text").spec.max_length == 48
    assert backbones.load("builtin/text", max_length=16).spec.max_length == 16
    assert backbones.load("builtin/audio", seconds=2).spec.seconds == 2


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_weights_takes_the_place_of_its_own(name: str, place: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = {key: value.float() * 0.5 for key, value in load_file(place / name / "model.safetensors").items()}
    save_file(state, tmp_path / "half.safetensors", {"format": "pt"})
    backbone = backbones.load(f"builtin/{name}", weights=tmp_path / "half.safetensors")
    assert backbone.origin.weights == "file:half.safetensors"
    assert backbone.origin.data == ""
    assert torch.equal(backbone.module.state_dict()[FIRST[name]], state[FIRST[name]])


@pytest.mark.parametrize("name", NAMES)
def test_damage_is_noticed(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = standins.write(tmp_path / "copy")
    monkeypatch.setattr(shipped, "FOLDER", folder)
    file = folder / name / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    with pytest.raises(BackboneError, match="damaged: their SHA-256 is not the card's") as raised:
        backbones.load(f"builtin/{name}")
    assert raised.value.problems[0].where == str(file)
    assert "install headstart again" in raised.value.problems[0].remedy
    backbones.load(f"builtin/{name}", pretrained=False)
    file.unlink()
    with pytest.raises(BackboneError, match="are missing"):
        backbones.load(f"builtin/{name}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "lacks architecture, input"),
        (json.dumps({"architecture": {}, "input": {}, "data": 1}), "lacks data, licence, sha256"),
    ],
)
def test_a_damaged_card_is_told(content: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "FOLDER", standins.write(tmp_path / "copy"))
    (tmp_path / "copy" / "image" / "card.json").write_text(content)
    with pytest.raises(BackboneError, match=message):
        backbones.load("builtin/image")


def test_unknown_names_are_told_with_the_nearest() -> None:
    with pytest.raises(BackboneError, match="no built-in backbone 'images', did you mean 'image'") as raised:
        backbones.load("builtin/images")
    assert raised.value.problems[0].remedy == "known: audio, image, text, tiny"


def test_the_catalogue_tells_how_they_came_to_be() -> None:
    found = {entry.name: entry for entry in catalogue("builtin")}
    assert list(found) == ["builtin/audio", "builtin/image", "builtin/text", "builtin/tiny"]
    entry, card = found["builtin/image"], shipped.card("image")
    assert (entry.weights, entry.parameters, entry.local) == ("image", card.parameters, True)
    assert entry.about == (
        ("trained on", "Seeded random numbers that stand in for image."),
        ("made by", "python -m pretraining.nothing --minutes 1, 1,200 steps, 2 min on 2 cores"),
        ("licence", "Apache-2.0"),
        ("file", f"{card.bytes / 1e6:.1f} MB, SHA-256 {card.sha256[:12]}…"),
        ("scores", "0.500  probe of drawn shapes"),
        ("scores", "0.250  textures, probe"),
    )
    assert not found["builtin/tiny"].about
