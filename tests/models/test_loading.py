"""Backbones by name: every library's features are what its classifier saw, and its own preprocessing is used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from headstart.core.errors import BackboneError, Unreachable
from headstart.data.modalities.image import ImageSpec
from headstart.models import backbone as backbones
from headstart.models import download, loading, shipped, surgery
from tests import standins

from .networks_zoo import TRANSFORMERS, statistics, transformers_model

VISION = ("resnet18", "mobilenet_v2", "shufflenet_v2_x0_5", "mnasnet0_5")
SLOW_VISION = ("densenet121", "convnext_tiny", "swin_t", "vit_b_32", "maxvit_t", "googlenet", "inception_v3", "alexnet")


def save(module: nn.Module, file: Path) -> Path:
    save_file({name: value.clone().contiguous() for name, value in module.state_dict().items()}, file)
    return file


def torchvision_model(name: str, **options: Any) -> nn.Module:
    from torchvision import models

    torch.manual_seed(0)
    if name in ("googlenet", "inception_v3"):
        options |= {"aux_logits": True, "init_weights": False, "transform_input": True}
    model = models.get_model(name, weights=None, **options)
    if name == "vit_b_32":  # torchvision starts its classifier at zero, which would prove nothing
        nn.init.normal_(model.heads.head.weight)
    return statistics(
        model,
        torch.randn(4, 3, *((299, 299) if name == "inception_v3" else (224, 224) if name in SLOW_VISION else (64, 64))),
    )


@pytest.mark.parametrize("name", [*VISION, *(pytest.param(n, marks=pytest.mark.slow) for n in SLOW_VISION)])
def test_torchvision_features_are_what_the_classifier_saw(name: str, tmp_path: Path) -> None:
    model = torchvision_model(name)
    file = save(model, tmp_path / "weights.safetensors")
    backbone = backbones.load(f"torchvision/{name}", weights=file).eval()
    inputs = torch.randn(2, *backbone.spec.input_shape)
    with torch.no_grad():
        wanted = model(inputs)
        assert backbone.source_head is not None
        assert torch.allclose(backbone.source_head(backbone.features(inputs)), wanted, rtol=1e-5, atol=1e-5)
    assert wanted.std() > 1e-4
    assert backbone.feature_dim == backbone.source_head.weight.shape[1]
    assert len(backbone.source_head.labels) == 1000
    assert backbone.source_head.labels[0] == "tench"
    assert backbone.origin.weights == "file:weights.safetensors"
    assert len(backbone.origin.sha256) == 64


def test_squeezenet_has_no_linear_classifier(tmp_path: Path) -> None:
    model = torchvision_model("squeezenet1_1")
    backbone = backbones.load("torchvision/squeezenet1_1", weights=save(model, tmp_path / "w.safetensors")).eval()
    inputs = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(backbone.features(inputs), model.features(inputs).mean(dim=(2, 3)))
    assert backbone.source_head is None


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet", "test_byobnet", "test_convnext"])
def test_timm_features_are_what_the_classifier_saw(name: str, tmp_path: Path) -> None:
    import timm

    torch.manual_seed(0)
    model = timm.create_model(name)
    statistics(model, torch.randn(4, *model.pretrained_cfg["input_size"]))
    backbone = backbones.load(f"timm/{name}", weights=save(model, tmp_path / "w.safetensors")).eval()
    inputs = torch.randn(2, *backbone.spec.input_shape)
    with torch.no_grad():
        assert backbone.source_head is not None
        assert torch.allclose(backbone.source_head(backbone.features(inputs)), model(inputs), atol=1e-6)
        assert torch.allclose(
            backbone.features(inputs), model.forward_head(model.forward_features(inputs), pre_logits=True), atol=1e-6
        )
    assert backbone.source_head.labels[0].startswith("tench")


@pytest.mark.parametrize("family", TRANSFORMERS)
def test_transformers_features_are_what_the_classifier_saw(family: str, tmp_path: Path) -> None:
    model = transformers_model(family)
    model.save_pretrained(tmp_path / "model")
    backbone = backbones.load(str(tmp_path / "model")).eval()
    inputs = torch.randn(2, 3, 32, 32)
    backbone.call = {}  # families built for 224 pixels interpolate positions; here both see 32
    with torch.no_grad():
        assert backbone.source_head is not None
        assert torch.allclose(backbone.source_head(backbone.features(inputs)), model(inputs).logits, atol=1e-6)
    assert backbone.source_head.labels == tuple(f"thing {index}" for index in range(7))


def test_a_headless_checkpoint_of_a_classifier_family(tmp_path: Path) -> None:
    """DINOv2 is published without a classifier: features are still what its classification head would see."""
    model = transformers_model("dinov2")
    model.dinov2.save_pretrained(tmp_path / "model")
    backbone = backbones.load(str(tmp_path / "model")).eval()
    inputs = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        tokens = model.dinov2(inputs).last_hidden_state
        wanted = torch.cat([tokens[:, 0], tokens[:, 1:].mean(dim=1)], dim=1)
        assert torch.allclose(backbone.features(inputs), wanted, atol=1e-6)
    assert backbone.source_head is None
    assert backbone.feature_dim == 64


def test_half_precision_checkpoints_are_read_in_full(tmp_path: Path) -> None:
    transformers_model("vit").bfloat16().save_pretrained(tmp_path / "model")
    backbone = backbones.load(str(tmp_path / "model"))
    assert {parameter.dtype for parameter in backbone.parameters()} == {torch.float32}


def test_transformers_weights_of_something_else_are_refused(tmp_path: Path) -> None:
    model = transformers_model("vit")
    model.save_pretrained(tmp_path / "model")
    save_file({"vit.strange": torch.zeros(2)}, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BackboneError, match="lack"):
        backbones.load(str(tmp_path / "model"))


def test_config_keys_that_run_code_are_dropped(tmp_path: Path) -> None:
    import json

    transformers_model("vit").save_pretrained(tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    planted = {"auto_map": {"AutoModel": "evil.Model"}, "_attn_implementation_internal": "evil/kernels"}
    file.write_text(json.dumps(json.loads(file.read_text()) | planted | {"attn_implementation": "evil/kernels"}))
    backbone = backbones.load(str(tmp_path / "model"))
    stored = json.dumps(backbone.architecture)
    assert "evil" not in stored
    assert "evil" not in backbone.module.config.to_json_string(use_diff=False)


def test_torchvision_preprocessing_is_the_weights_own() -> None:
    from torchvision import models

    entry = models.MobileNet_V2_Weights.IMAGENET1K_V2
    preset = entry.transforms()
    backbone = backbones.load("torchvision/mobilenet_v2", pretrained=False)
    spec = backbone.spec
    assert (spec.size, spec.resize) == ((preset.crop_size[0],) * 2, preset.resize_size[0])
    assert (spec.mean, spec.std, spec.interpolation) == (tuple(preset.mean), tuple(preset.std), "bilinear")
    inputs = torch.randint(0, 256, (2, 3, 232, 232), dtype=torch.uint8)
    wanted = preset(inputs)
    cut = inputs[:, :, 4:228, 4:228]
    assert torch.allclose(backbone.intake.normalise(cut), wanted, atol=1e-6)
    assert backbone.intake.normalise(wanted) is wanted


def test_timm_preprocessing_is_the_weights_own() -> None:
    import timm

    backbone = backbones.load("timm/test_vit", pretrained=False)
    data = timm.data.resolve_data_config({}, model=timm.create_model("test_vit"))
    assert backbone.spec.input_shape == data["input_size"]
    assert backbone.spec.resize == int(data["input_size"][1] / data["crop_pct"])
    assert (backbone.spec.mean, backbone.spec.interpolation) == (tuple(data["mean"]), data["interpolation"])


@pytest.mark.parametrize(
    ("stored", "wanted"),
    [
        ({"size": {"height": 32, "width": 32}, "resample": 2}, {"resize": 32, "crop": "squash"}),
        ({"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}}, {"resize": 36, "crop": "center"}),
        ({"size": {"shortest_edge": 32}, "crop_pct": 0.875}, {"resize": 36, "crop": "center"}),
        ({"size": 32, "do_normalize": False, "resample": 3}, {"mean": (0.0,) * 3, "interpolation": "bicubic"}),
        ({"size": 32, "image_mean": [1.0] * 3, "rescale_factor": 1 / 127.5}, {"mean": (0.5,) * 3, "std": (0.25,) * 3}),
    ],
)
def test_image_processors_become_specs(stored: dict[str, Any], wanted: dict[str, Any]) -> None:
    from headstart.models.families import processor

    spec = processor.read(stored, SimpleNamespace(image_size=224))
    assert spec.size == (32, 32)
    for key, value in wanted.items():
        assert getattr(spec, key) == (pytest.approx(value) if isinstance(value, tuple) else value)


def test_written_processors_prepare_what_the_spec_says(tmp_path: Path) -> None:
    """transformers' own processor, reading what we write, gives the network the same numbers as our decoder."""
    import json

    import numpy as np
    from transformers import AutoImageProcessor

    from headstart.data.modalities import image
    from headstart.models.families import processor

    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    for spec in (ImageSpec(size=(32, 32), resize=36), ImageSpec(size=(32, 32), resize=32, crop="squash")):
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor.write(spec)))
        theirs = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")(images=pixels, return_tensors="pt")
        ours = torch.from_numpy(image.prepare(pixels, spec).copy()).permute(2, 0, 1)[None].float() / 255
        ours = (ours - torch.tensor(spec.mean).view(1, 3, 1, 1)) / torch.tensor(spec.std).view(1, 3, 1, 1)
        assert torch.allclose(theirs["pixel_values"], ours, atol=0.02)


@pytest.mark.parametrize("channels", [1, 2, 4, 6])
def test_first_convolution_adapts_as_in_timm(channels: int) -> None:
    from timm.models import adapt_input_conv

    weight = torch.randn(8, 3, 3, 3)
    wanted = adapt_input_conv(channels, weight.clone())
    assert torch.allclose(surgery.adapted(weight, channels), wanted, atol=1e-6)


@pytest.mark.parametrize("name", ["torchvision/resnet18", "timm/test_resnet", "builtin/tiny", "hf"])
@pytest.mark.parametrize("channels", [1, 4])
def test_other_channel_counts(name: str, channels: int, tmp_path: Path) -> None:
    if name == "hf":
        transformers_model("convnext").save_pretrained(tmp_path / "model")
        name = str(tmp_path / "model")
    file = None
    if name == "timm/test_resnet":
        import timm

        file = save(timm.create_model("test_resnet"), tmp_path / "w.safetensors")
    size = 32 if name.startswith("/") else 64
    options: dict[str, Any] = {"image_size": size, "weights": file, "pretrained": name.startswith("/")}
    rgb = backbones.load(name, **options).eval()
    other = backbones.load(name, channels=channels, **options).eval()
    assert other.spec.input_shape == (channels, size, size)
    grey = torch.randn(2, 1, size, size)
    with torch.no_grad():
        features = other.features(grey.expand(-1, channels, -1, -1).contiguous())
        if channels == 1:  # a grey picture answers as its RGB copy does
            wanted = rgb.features(grey.expand(-1, 3, -1, -1).contiguous())
            assert torch.allclose(features, wanted, atol=1e-4 * wanted.abs().max().item() + 1e-6)
    assert features.isfinite().all()
    assert other.features(torch.zeros(1, channels, size, size, dtype=torch.uint8)).shape == (1, other.feature_dim)


@pytest.mark.slow
def test_torchvision_vit_interpolates_positions(tmp_path: Path) -> None:
    file = save(torchvision_model("vit_b_32"), tmp_path / "w.safetensors")
    backbone = backbones.load("torchvision/vit_b_32", weights=file, image_size=96)
    assert backbone.features(torch.zeros(1, 3, 96, 96)).shape == (1, 768)


def test_timm_vit_interpolates_positions(tmp_path: Path) -> None:
    import timm

    model = timm.create_model("test_vit").eval()
    backbone = backbones.load("timm/test_vit", weights=save(model, tmp_path / "w.safetensors"), image_size=96).eval()
    wanted = timm.create_model(
        "test_vit",
        pretrained=True,
        pretrained_cfg_overlay={"file": str(tmp_path / "w.safetensors")},
        img_size=96,
        num_classes=1000,
    ).eval()
    inputs = torch.randn(1, 3, 96, 96)
    assert torch.allclose(backbone.source_head(backbone.features(inputs)), wanted(inputs), atol=1e-6)


def test_transformers_interpolates_positions(tmp_path: Path) -> None:
    model = transformers_model("vit")
    model.save_pretrained(tmp_path / "model")
    backbone = backbones.load(str(tmp_path / "model"), image_size=48).eval()
    inputs = torch.randn(1, 3, 48, 48)
    with torch.no_grad():
        wanted = model(inputs, interpolate_pos_encoding=True).logits
        assert torch.allclose(backbone.source_head(backbone.features(inputs)), wanted, atol=1e-6)


def test_timm_folders_are_read(tmp_path: Path) -> None:
    import timm
    from timm.models import save_for_hf

    torch.manual_seed(0)
    model = statistics(timm.create_model("test_resnet", num_classes=3), torch.randn(4, 3, 64, 64))
    save_for_hf(model, tmp_path / "m", model_config={"label_names": ["x", "y", "z"]}, safe_serialization=True)
    backbone = backbones.load(str(tmp_path / "m")).eval()
    inputs = torch.randn(2, *backbone.spec.input_shape)
    assert backbone.source_head.labels == ("x", "y", "z")
    with torch.no_grad():
        assert torch.allclose(backbone.source_head(backbone.features(inputs)), model(inputs), atol=1e-6)


def test_the_same_seed_gives_the_same_random_weights() -> None:
    torch.manual_seed(3)
    first = backbones.load("builtin/tiny", seed=5)
    torch.manual_seed(4)
    second, third = backbones.load("builtin/tiny", seed=5), backbones.load("builtin/tiny", seed=6)
    assert first.origin.weights == "random"
    assert first.weights_hash() == second.weights_hash() != third.weights_hash()


class Small(nn.Module):
    """A user's network: maps come out, to be pooled."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = ImageSpec(size=(16, 16), resize=16)
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3), nn.Conv2d(5, 6, 3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.body(images)


def test_own_modules_by_name_and_as_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = (
        "from torch import nn\n\n\ndef small():\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3), nn.Conv2d(5, 6, 3))\n\n\nnumber = 3\n"
    )
    (tmp_path / "my_nets.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    named = backbones.load("my_nets.small", image_size=16)
    assert (named.feature_dim, named.blocks, named.spec.size) == (6, ("0", "1", "2"), (16, 16))
    given = Small()
    held = backbones.load(given, channels=4)
    assert held.feature_dim == 6
    assert held.spec == ImageSpec(
        size=(16, 16), resize=16, channels=4, mean=(0.485, 0.456, 0.406, 0.485), std=(0.229, 0.224, 0.225, 0.229)
    )
    assert given.body[0].in_channels == 3, "the user's object was changed"
    for wrong, words in {
        "my_nets.absent": "no class or function",
        "my_nets.number": "no class",
        "no.where": "import",
        " ": "its name is blank",
    }.items():
        with pytest.raises(BackboneError, match=words):
            backbones.load(wrong)


def test_classifiers_of_known_libraries_are_taken_off_objects() -> None:
    model = torchvision_model("resnet18", num_classes=5)
    backbone = backbones.load(model, image_size=64).eval()
    inputs = torch.randn(2, 3, 64, 64)
    assert backbone.feature_dim == 512
    with torch.no_grad():
        assert torch.allclose(backbone.source_head(backbone.features(inputs)), model(inputs), atol=1e-5)
    assert isinstance(model.fc, nn.Linear)


def test_paths_win_over_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert loading.resolve("google/vit") == ("transformers", "google/vit")
    (tmp_path / "google" / "vit").mkdir(parents=True)
    assert loading.resolve("google/vit") == ("local", "google/vit")
    assert loading.resolve("timm/resnet18.a1_in1k") == ("timm", "resnet18.a1_in1k")
    assert loading.resolve("my_lab.nets.small") == ("own", "my_lab.nets.small")
    with pytest.raises(BackboneError, match="neither headstart"):
        backbones.load("google/vit")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet18", "did you mean torchvision/resnet18"),
        ("torchvision/resnet81", "did you mean 'resnet18'"),
        ("torchvision/resnet18.V9", "IMAGENET1K_V1"),
        ("timm/resnet81", "did you mean"),
        ("timm/resnet18.absent_tag", "a1_in1k"),
        ("builtin/tin", "did you mean 'tiny'"),
        ("./no/such/folder", "no such file or folder"),
    ],
)
def test_wrong_names_say_what_is_near(name: str, words: str) -> None:
    with pytest.raises(BackboneError) as caught:
        backbones.load(name, offline=True)
    assert words in str(caught.value)


@pytest.mark.parametrize(("name", "near"), [("torchvison/resnet18", "torchvision/resnet18"), ("tim/x", "timm/x")])
def test_a_slip_in_the_library_is_no_owner_on_the_hub(name: str, near: str) -> None:
    with pytest.raises(Unreachable) as caught:
        backbones.load(name, offline=True)
    assert caught.value.problems[0].remedy.startswith(f"did you mean '{near}'?")
    with pytest.raises(Unreachable) as caught:
        backbones.load("google/vit-base-patch16-224", offline=True)
    assert "did you mean" not in str(caught.value)


@pytest.mark.parametrize("name", ["torchvision/resnet18", "timm/resnet18.a1_in1k", "google/vit-base-patch16-224"])
@pytest.mark.parametrize("offline", [True, False])
def test_weights_that_cannot_be_had(name: str, offline: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(download, "answers", lambda url: False)
    with pytest.raises(Unreachable) as caught:
        backbones.load(name, offline=offline)
    message = str(caught.value)
    for words in (name.removeprefix("timm/"), "--weights FILE", "--backbone torchvision/", "pretrained=false"):
        assert words in message


def test_hub_ids_are_read_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.file_download

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.file_download.constants, "HF_HUB_CACHE", str(tmp_path))
    repo = tmp_path / "models--my-lab--tiny-vit"
    transformers_model("vit").save_pretrained(repo / "snapshots" / "abc123")
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("abc123")
    backbone = backbones.load("my-lab/tiny-vit")
    assert (backbone.origin.uri, backbone.origin.revision) == ("my-lab/tiny-vit", "abc123")
    assert backbone.source_head is not None


def test_the_standard_list_is_true() -> None:
    """File names and accuracies of the list are those that torchvision publishes."""
    import timm
    from torchvision import models

    for standard in loading.STANDARDS:
        library, _, name = standard.name.partition("/")
        if library == "timm":
            assert timm.get_pretrained_cfg(name).hf_hub_id == standard.name
            continue
        entry = models.get_model_weights(name).DEFAULT
        assert entry.url == standard.url
        assert f"{entry.meta['_metrics']['ImageNet-1K']['acc@1']:.1f} %" in standard.facts
    assert loading.TO_FETCH.name == "torchvision/efficientnet_b0"


def test_default_takes_the_best_that_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "FOLDER", standins.write(tmp_path / "builtin"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(download, "answers", lambda url: False)
    name, reason = backbones.default(offline=False)
    assert name == "builtin/image"
    assert "the network does not answer; this one ships with Headstart" in reason
    assert shipped.card("image").data.rstrip(".") in reason
    assert "--weights" in reason
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    for standard in (loading.STANDARDS[6], loading.STANDARDS[4]):
        (folder / standard.file).touch()
        name, reason = backbones.default(offline=True)
        assert name == standard.name
        assert standard.facts in reason
    (folder / loading.STANDARDS[6].file).unlink()
    (folder / loading.STANDARDS[4].file).unlink()
    monkeypatch.setattr(download, "answers", lambda url: url == loading.TO_FETCH.url)
    assert backbones.default(offline=False)[0] == loading.TO_FETCH.name
    assert backbones.default(offline=True)[0] == "builtin/image"


@pytest.mark.parametrize("modality", ["text", "audio"])
def test_default_of_texts_and_sounds(modality: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "FOLDER", standins.write(tmp_path))
    monkeypatch.setattr(download, "answers", lambda url: True)
    first = loading.HUB_STANDARDS[modality][0]
    assert backbones.default(modality=modality)[0] == first
    name, reason = backbones.default(offline=True, modality=modality)
    assert name == f"builtin/{modality}"
    assert "offline was asked for; this one ships with Headstart" in reason
    assert first in reason
    monkeypatch.setattr(download, "hub_cached", lambda repo, *_: Path(repo) if repo != first else None)
    assert backbones.default(offline=True, modality=modality)[0] == loading.HUB_STANDARDS[modality][1]


@pytest.mark.slow
def test_torchvision_backbones_import_no_other_library() -> None:
    program = (
        "import sys\nfrom headstart.models import backbone, heads, model, resume\n"
        "b = backbone.load('torchvision/mobilenet_v3_small', pretrained=False, image_size=32)\n"
        "heavy = ('timm', 'transformers', 'sklearn', 'pandas', 'datasets', 'huggingface_hub')\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.real
def test_real_weights_know_their_classes(shared_data: Path) -> None:
    from headstart.data.modalities import image

    file = shared_data / "weights" / "mobilenet_v2_imagenet.safetensors"
    backbone = backbones.load("torchvision/mobilenet_v2", weights=file).eval()
    photos = sorted((shared_data / "hymenoptera" / "val").glob("*/*.jpg"))[::5]
    stack = torch.stack(
        [torch.from_numpy(image.prepare(str(p), backbone.spec).copy()).permute(2, 0, 1) for p in photos]
    )
    with torch.no_grad():
        best = backbone.source_head(backbone.features(stack)).argmax(dim=1)
    named = [backbone.source_head.labels[index] for index in best]
    hits = sum(
        ("ant" in name and "ants" in str(p)) or ("bee" in name and "bees" in str(p))
        for name, p in zip(named, photos, strict=True)
    )
    assert hits > len(photos) / 2
    assert backbone.verify(stack[:2]).ok
