"""A model's folder: equal logits after loading, by us and by the libraries, and every tampering refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from headstart.core import manifest
from headstart.core.errors import ArtefactError, BackboneError, HeadstartError
from headstart.models import backbone as backbones
from headstart.models import download, heads
from headstart.models.model import Model

from .networks_zoo import QUICK, batch, make, statistics, transformers_model


def model_of(name: str, tmp_path: Path, kind: str = "linear") -> Model:
    backbone = make(name, tmp_path)
    backbone.verify(batch(backbone))
    head = heads.build(kind, backbone.feature_dim, 3, hidden=8, seed=4)
    return Model(backbone, head, ("Ähre", "b/c", '"d"'), bn="eval", temperature=1.7).eval()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return model_of("builtin/tiny", tmp_path).save(tmp_path / "model")


@pytest.mark.parametrize("name", QUICK)
def test_loading_needs_only_the_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(name, tmp_path)
    inputs = batch(model.backbone)
    folder = model.save(tmp_path / "model", examples=inputs)

    def refuse(*_args: Any, **_kwargs: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(download, "fetch", refuse)
    monkeypatch.setattr(download, "hub_file", refuse)
    again = Model.load(folder)
    assert not again.training
    with torch.no_grad():
        assert torch.equal(again(inputs), model(inputs))
    assert (again.classes, again.bn, again.temperature) == (model.classes, "eval", 1.7)
    assert again.backbone.blocks == model.backbone.blocks
    assert again.backbone.depths() == model.backbone.depths()
    assert again.backbone.spec == model.backbone.spec
    assert again.backbone.origin == model.backbone.origin


def golden(folder: Path) -> np.ndarray:
    with np.load(folder / "golden.npz") as stored:
        return stored["logits"]


def test_golden_logits_are_exact_whatever_training_was_fast_in(saved: Path, tmp_path: Path) -> None:
    model = Model.load(saved)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        folder = model.save(tmp_path / "fast")
    assert np.array_equal(golden(folder), golden(saved))
    model.double().save(tmp_path / "double")
    assert np.array_equal(golden(tmp_path / "double"), golden(saved))
    assert next(model.parameters()).dtype == torch.float64, "the caller's model was changed"


@pytest.mark.gpu
def test_golden_logits_of_a_model_on_an_accelerator_are_those_of_the_cpu(tmp_path: Path) -> None:
    model = model_of("builtin/tiny", tmp_path)
    model.save(tmp_path / "here")
    model.to("cuda").save(tmp_path / "there")
    assert np.array_equal(golden(tmp_path / "there"), golden(tmp_path / "here"))
    assert next(model.parameters()).is_cuda


@pytest.mark.parametrize("kind", heads.KINDS)
def test_every_head_is_saved(kind: str, tmp_path: Path) -> None:
    model = model_of("builtin/tiny", tmp_path, kind)
    again = Model.load(model.save(tmp_path / "model"))
    inputs = batch(model.backbone)
    assert torch.equal(again(inputs), model(inputs))
    assert again.head.settings() == model.head.settings()


@pytest.mark.parametrize("name", ["timm/test_resnet", "timm/test_vit", "timm/test_efficientnet"])
@pytest.mark.parametrize("channels", [3, 1])
def test_timm_opens_the_folder(name: str, channels: int, tmp_path: Path) -> None:
    import timm

    backbone = backbones.load(name, pretrained=False, image_size=64, channels=channels)
    statistics(backbone, torch.randn(8, *backbone.spec.input_shape))
    model = Model(backbone, heads.build("linear", backbone.feature_dim, 3), "abc").eval()
    folder = model.save(tmp_path / "model")
    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    inputs = torch.randn(2, channels, 64, 64)
    with torch.no_grad():
        assert torch.allclose(theirs(inputs), model(inputs), atol=1e-6)
    data = timm.data.resolve_data_config({}, model=theirs)
    assert (tuple(data["input_size"]), tuple(data["mean"])) == (backbone.spec.input_shape, backbone.spec.mean)
    assert "create_model" in (folder / "README.md").read_text()


def test_transformers_opens_timm_folders(tmp_path: Path) -> None:
    from transformers import AutoModelForImageClassification

    model = model_of("timm/test_resnet", tmp_path)
    folder = model.save(tmp_path / "model")
    theirs = AutoModelForImageClassification.from_pretrained(folder).eval()
    inputs = torch.randn(2, *model.backbone.spec.input_shape)
    with torch.no_grad():
        assert torch.allclose(theirs(inputs).logits, model(inputs), atol=1e-6)
    assert theirs.config.id2label[0] == "Ähre"


@pytest.mark.parametrize("family", ["vit", "dinov2", "convnext", "swin", "resnet"])
def test_transformers_opens_its_folders(family: str, tmp_path: Path) -> None:
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    transformers_model(family).save_pretrained(tmp_path / "hf")
    backbone = backbones.load(str(tmp_path / "hf")).eval()
    backbone.call = {}
    model = Model(backbone, heads.build("linear", backbone.feature_dim, 3), ("x", "y", "z")).eval()
    folder = model.save(tmp_path / "model")
    theirs = AutoModelForImageClassification.from_pretrained(folder).eval()
    inputs = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(theirs(inputs).logits, model(inputs), atol=1e-6)
    assert theirs.config.label2id == {"x": 0, "y": 1, "z": 2}
    assert AutoImageProcessor.from_pretrained(folder).image_mean == pytest.approx(list(backbone.spec.mean))


def test_torchvision_opens_the_weights(tmp_path: Path) -> None:
    from torchvision import models

    model = model_of("torchvision/resnet18", tmp_path)
    folder = model.save(tmp_path / "model")
    theirs = models.resnet18(num_classes=3)
    theirs.load_state_dict(load_file(folder / "model.safetensors"))
    inputs = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(theirs.eval()(inputs), model(inputs), atol=1e-6)


def test_a_saved_model_is_a_backbone(tmp_path: Path) -> None:
    model = model_of("torchvision/resnet18", tmp_path)
    folder = model.save(tmp_path / "runs" / "photos" / "model")
    for path in (folder, folder.parent):
        backbone = backbones.load(str(path)).eval()
        inputs = batch(backbone)
        with torch.no_grad():
            assert torch.allclose(backbone.source_head(backbone.features(inputs)), model(inputs), atol=1e-6)
        assert backbone.source_head.labels == model.classes
        assert "photos" in backbone.origin.uri
    with pytest.raises(BackboneError, match="taken as it is"):
        backbones.load(str(folder), image_size=32)


def reseal(folder: Path) -> None:
    (folder / manifest.MANIFEST).unlink()
    manifest.seal(folder)


def edit(folder: Path, change: Callable[[dict[str, Any]], None], file: str = "headstart.json") -> None:
    facts = json.loads((folder / file).read_text())
    change(facts)
    (folder / file).write_text(json.dumps(facts))
    reseal(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "headstart.json", "labels.json", "golden.npz", "README.md"])
def test_a_flipped_bit_is_noticed(name: str, saved: Path) -> None:
    content = bytearray((saved / name).read_bytes())
    content[len(content) // 2] ^= 1
    (saved / name).write_bytes(content)
    with pytest.raises(ArtefactError, match="damaged"):
        Model.load(saved)


def test_weights_that_were_exchanged_are_noticed(saved: Path) -> None:
    state = load_file(saved / "model.safetensors")
    name = "backbone.module.blocks.3.first.0.weight"
    save_file({**state, name: state[name] * 1.1}, saved / "model.safetensors")
    reseal(saved)
    with pytest.raises(ArtefactError, match="answers differently"):
        Model.load(saved)


TAMPERINGS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "unknown keys": lambda facts: facts.update(hook="os.system"),
    "missing": lambda facts: facts.pop("blocks"),
    "wrong type": lambda facts: facts.update(temperature="1"),
    "newer Headstart": lambda facts: facts.update(format=99),
    "unknown library": lambda facts: facts["architecture"].update(library="os"),
    "not a name": lambda facts: facts["architecture"].update(name="tiny; import os"),
    "origin.path": lambda facts: facts["origin"].update(path="/etc/passwd"),
    "head.code": lambda facts: facts["head"].update(code="x"),
    "its blocks are not": lambda facts: facts.update(blocks=["no.such.block"]),
    "do not agree": lambda facts: facts["head"].update(num_classes=4),
}


@pytest.mark.parametrize("words", TAMPERINGS)
def test_tampered_descriptions_are_refused(words: str, saved: Path) -> None:
    edit(saved, TAMPERINGS[words])
    with pytest.raises(HeadstartError, match=words):
        Model.load(saved)


def test_random_edits_never_raise_anything_else(saved: Path) -> None:
    """Every value of the description in turn becomes something else."""
    original = (saved / "headstart.json").read_text()
    paths = [(key,) for key in json.loads(original)]
    paths += [(part, key) for part in ("architecture", "origin", "head") for key in json.loads(original)[part]]
    for path in paths:
        for value in (None, -1, "../../x", [], {"a": 1}, 10**9):
            facts = json.loads(original)
            place = facts if len(path) == 1 else facts[path[0]]
            place[path[-1]] = value
            (saved / "headstart.json").write_text(json.dumps(facts))
            reseal(saved)
            try:
                Model.load(saved)
            except HeadstartError:
                continue


def test_missing_pieces_are_refused(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtefactError):
        Model.load(tmp_path / "nowhere")
    (saved / "golden.npz").write_bytes(b"PK")
    reseal(saved)
    with pytest.raises(ArtefactError, match=r"golden\.npz"):
        Model.load(saved)
    np.savez(saved / "golden.npz", inputs=np.array([object()]), logits=np.zeros(1))
    reseal(saved)
    with pytest.raises(ArtefactError, match=r"golden\.npz"):
        Model.load(saved)


def test_what_is_not_ours_is_not_overwritten(tmp_path: Path) -> None:
    model = model_of("builtin/tiny", tmp_path)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    with pytest.raises(ArtefactError, match="nothing was written"):
        model.save(mine)
    assert [file.name for file in mine.iterdir()] == ["thesis.txt"]


def test_saving_again_replaces_as_a_whole(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("builtin/tiny", tmp_path, "mlp")
    before = {file.name: file.read_bytes() for file in saved.iterdir()}

    def break_off(_folder: Path) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(manifest, "seal", break_off)
        with pytest.raises(OSError, match="disk full"):
            model.save(saved)
    assert {file.name: file.read_bytes() for file in saved.iterdir()} == before
    model.save(saved)
    assert Model.load(saved).head.settings()["kind"] == "mlp"
    assert not [path for path in saved.parent.iterdir() if path.name.startswith(".model")]


def test_own_modules_are_imported_only_with_consent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_nets.py").write_text(
        "from torch import nn\n\n\ndef small():\n    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    backbone = backbones.load("their_nets.small", image_size=16)
    model = Model(backbone, heads.build("linear", backbone.feature_dim, 2), "ab").eval()
    folder = model.save(tmp_path / "model")
    monkeypatch.delitem(sys.modules, "their_nets")
    with pytest.raises(ArtefactError, match="--allow-module to the line, or allow_module=True"):
        Model.load(folder)
    assert "their_nets" not in sys.modules
    inputs = batch(backbone)
    assert torch.equal(Model.load(folder, allow_module=True)(inputs), model(inputs))


def test_the_line_says_how_consent_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import headstart
    from headstart import cli

    (tmp_path / "own_nets.py").write_text("from torch import nn\n\n\ndef small():\n    return nn.Conv2d(3, 4, 8)\n")
    monkeypatch.syspath_prepend(tmp_path)
    backbone = backbones.load("own_nets.small", image_size=16)
    folder = Model(backbone, heads.build("linear", 4, 2), "ab").eval().save(tmp_path / "model")
    Image.new("RGB", (20, 20)).save(tmp_path / "new.png")
    asked = ["predict", str(folder), str(tmp_path / "new.png")]
    assert cli.run(asked) == 1
    assert "--allow-module" in capsys.readouterr().err
    assert cli.run([*asked, "--allow-module"]) == 0
    features = ["embed", *asked[1:], "--output", str(tmp_path / "f.npz")]
    assert cli.run(features) == 1
    assert cli.run([*features, "--allow-module"]) == 0
    (row,) = headstart.predict(folder, tmp_path / "new.png", allow_module=True)
    assert row.scores


class Given(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images)


def test_modules_given_as_objects_are_given_again(tmp_path: Path) -> None:
    backbone = backbones.load(Given(), image_size=16, channels=1)
    model = Model(backbone, heads.build("linear", 4, 2), "ab").eval()
    folder = model.save(tmp_path / "model")
    with pytest.raises(ArtefactError, match="given as an object"):
        Model.load(folder, allow_module=True)
    inputs = batch(backbone)
    assert torch.equal(Model.load(folder, allow_module=Given())(inputs), model(inputs))


def test_no_path_of_this_machine_is_written(tmp_path: Path) -> None:
    transformers_model("vit").save_pretrained(tmp_path / "hf")
    backbone = backbones.load(str(tmp_path / "hf"))
    folder = Model(backbone, heads.build("linear", backbone.feature_dim, 2), "ab").save(tmp_path / "model")
    for file in folder.glob("*.json"):
        assert str(tmp_path) not in file.read_text()
    assert str(tmp_path) not in (folder / "README.md").read_text()
