"""Networks of transformers that hear: blocks, the frozen front end, pooling, and folders that transformers opens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from headstart.core.errors import BackboneError, ConfigError
from headstart.data.modalities import audio
from headstart.data.modalities.audio import PAD
from headstart.models import backbone as backbones
from headstart.models import heads, resume
from headstart.models.backbone import Backbone
from headstart.models.model import Model

from .parity import check
from .sounds_zoo import CONVOLVED, FAMILIES, SECONDS, batch, config, make, saved

CLASSES = ("bark", "cough", "rain")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A tiny random network as transformers saves it; made once."""
    made: dict[str, Path] = {}

    def of(family: str) -> Path:
        if family not in made:
            made[family] = saved(family, tmp_path_factory.mktemp(family))
        return made[family]

    return of


def load(folder: Path, family: str, **given: object) -> Backbone:
    seconds = {} if family == "whisper" else {"seconds": SECONDS}
    return backbones.load(str(folder), **{**seconds, **given}).eval()  # type: ignore[arg-type]


def model_of(backbone: Backbone) -> Model:
    top = heads.build("linear", backbone.feature_dim, len(CLASSES), seed=1)
    torch.nn.init.normal_(top.last.weight, generator=torch.Generator().manual_seed(2))
    return Model(backbone, top, CLASSES).eval()


@pytest.mark.parametrize("windows", [1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_cached_equals_live(family: str, windows: int, folder: Callable[[str], Path]) -> None:
    backbone = load(folder(family), family)
    inputs = batch(backbone, windows=windows)
    verified = backbone.verify(inputs)
    assert verified.ok, verified.reason
    assert len(backbone.blocks) == (4 if family in CONVOLVED else 3)
    assert backbone.origin.weights == "pretrained"
    assert backbone.uniform == backbone.front, "a resumed step would compute what is frozen"
    check(backbone, inputs)


@pytest.mark.parametrize("family", CONVOLVED)
def test_the_front_end_stays_frozen_and_its_output_can_be_kept(family: str, folder: Callable[[str], Path]) -> None:
    model = model_of(load(folder(family), family))
    model.backbone.verify(batch(model.backbone))
    front = model.backbone.front_end
    assert model.backbone.blocks[0] == front

    def trains() -> set[str]:
        return {name for name, parameter in model.backbone.module.named_parameters() if parameter.requires_grad}

    every = {name for name, _ in model.backbone.module.named_parameters()}
    convolutions = {name for name in every if name.startswith(f"{front}.")}
    assert convolutions
    model.thaw("all")
    unused = {name for name in every if "masked_spec_embed" in name}  # which nothing trains
    assert trains() == every - convolutions - unused
    assert model.frozen_prefix == 1
    model.thaw(3)
    assert trains() == every - convolutions - unused
    model.thaw(0.5)  # of three layers
    assert model.frozen_prefix == 2
    model.thaw("all", front_end=True)
    assert trains() == every - unused
    assert model.frozen_prefix == 0
    with pytest.raises(ConfigError):
        model.thaw(4)
    model.thaw(4, front_end=True)
    assert trains() == every - unused


def test_what_lies_between_front_end_and_layers_trains_from_the_cache(folder: Callable[[str], Path]) -> None:
    """All of its gradient, although the convolutions are not computed."""
    model = model_of(load(folder("wav2vec2"), "wav2vec2"))
    backbone, inputs = model.backbone, batch(model.backbone)
    backbone.verify(inputs)
    model.thaw("all")
    value = resume.record(backbone, 1, inputs)
    calls: list[int] = []
    handles = [
        part.register_forward_hook(lambda *_: calls.append(1))
        for part in backbone.block(0).modules()
        if isinstance(part, torch.nn.Conv1d)
    ]
    model.head(resume.features_from(backbone, 1, value, 3)).square().sum().backward()
    for handle in handles:
        handle.remove()
    positions = [name for name, _ in backbone.module.named_parameters() if "pos_conv" in name or "projection" in name]
    assert len(positions) >= 6
    assert all(backbone.module.get_parameter(name).grad.abs().sum() > 0 for name in positions)
    assert not calls, "the frozen convolutions ran"


def test_planted_fault_what_works_on_both_sides_of_the_front_end_is_not_trained_from_the_cache() -> None:
    """A scale that also works before the front end would be given half of its gradient."""

    class Scaled(torch.nn.Module):
        def __init__(self, before: bool) -> None:
            super().__init__()
            self.before = before
            self.spec = audio.AudioSpec(4_000, 0.25)
            self.scale = torch.nn.Parameter(torch.tensor([1.5]))
            self.front = torch.nn.Sequential(torch.nn.Conv1d(1, 8, 10, 10), torch.nn.GELU())
            self.layers = torch.nn.ModuleList(torch.nn.Linear(8, 8) for _ in range(3))

        def forward(self, wave: Tensor) -> Tensor:
            wave = wave * self.scale if self.before else wave
            hidden = self.front(wave[:, None]).transpose(1, 2) * self.scale
            for layer in self.layers:
                hidden = torch.relu(layer(hidden))
            return hidden

    for before in (False, True):
        torch.manual_seed(0)
        plain = backbones.load(Scaled(before))
        backbone = Backbone(
            plain.module, spec=plain.spec, origin=plain.origin, architecture=plain.architecture, front_end="front"
        ).eval()
        assert backbone.verify(batch(backbone)).ok
        assert backbone.blocks == ("front", "layers.0", "layers.1", "layers.2")
        assert backbone.measured.between == (frozenset() if before else {"scale"})
        model = model_of(backbone)
        model.thaw("all")
        assert backbone.module.scale.requires_grad
        assert model.frozen_prefix == (0 if before else 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_model_answers_the_same(family: str, folder: Callable[[str], Path], tmp_path: Path) -> None:
    model = model_of(load(folder(family), family))
    inputs = batch(model.backbone, windows=2)
    model.save(tmp_path / "model", examples=inputs)
    again = Model.load(tmp_path / "model")
    with torch.no_grad():
        assert torch.equal(again(inputs), model(inputs))
    assert again.backbone.spec == model.backbone.spec
    assert again.backbone.front_end == model.backbone.front_end


@pytest.mark.filterwarnings("ignore:At least one mel filter")
@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_opens_the_folder_with_equal_scores(
    family: str, folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import pipeline

    model = model_of(load(folder(family), family))
    spec = model.backbone.spec
    rng = np.random.default_rng(3)
    places = np.arange(spec.window)
    tones = [900 * row * np.sin(places * row / 9) + rng.normal(0, 300, spec.window) for row in (1, 5, 9)]
    clips = [tone.round().astype(np.int16) for tone in tones]
    inputs = torch.from_numpy(audio.collate(clips))
    with torch.no_grad():  # a head that tells the clips apart, however little a random network does
        logits = model(inputs)
        scale = 1 / logits.std(dim=0, keepdim=True).T
        model.head.last.weight.mul_(scale)
        model.head.last.bias.copy_((model.head.last.bias - logits.mean(dim=0)) * scale[:, 0])
    model.save(tmp_path / "model", examples=inputs)
    with torch.no_grad():
        wanted = model(torch.from_numpy(audio.collate(clips))).softmax(1).numpy()
    ask = pipeline("audio-classification", str(tmp_path / "model"), device="cpu")
    for clip, scores in zip(clips, wanted, strict=True):
        answer = {each["label"]: each["score"] for each in ask(clip.astype(np.float32) / 32768, top_k=None)}
        assert np.abs(np.array([answer[name] for name in CLASSES]) - scores).max() < 1e-4
    assert np.ptp(wanted, axis=0).max() > 0.01, "all clips alike: equal scores would prove nothing"
    assert "AutoModelForAudioClassification" in (tmp_path / "model" / "README.md").read_text()


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_and_company_change_no_feature(family: str, folder: Callable[[str], Path]) -> None:
    """A row alone, among longer ones and followed by a window of nothing: the same features."""
    backbone = load(folder(family), family)
    inputs = batch(backbone)
    with torch.no_grad():
        together = backbone.features(inputs)
        wider = torch.nn.functional.pad(inputs, (0, 2 * backbone.spec.window), value=PAD)
        assert torch.allclose(backbone.features(wider), together, atol=1e-5)
        for row, features in zip(inputs, together, strict=True):
            assert torch.allclose(backbone.features(row[row != PAD][None])[0], features, atol=1e-5)
        silent = torch.where(wider == PAD, 0, wider)  # silence instead of nothing: now it must be heard
        assert not torch.allclose(backbone.features(silent), together, atol=1e-4)


def test_a_trained_classifier_is_what_its_network_had(tmp_path: Path) -> None:
    from transformers import AutoModelForAudioClassification

    place = saved("wav2vec2", tmp_path, classes=3)
    backbone = load(place, "wav2vec2")
    theirs = AutoModelForAudioClassification.from_pretrained(place).eval()
    clip = batch(backbone)[:1]
    wave = clip.float() / 32768
    given = (wave - wave.mean()) / (wave.var(unbiased=False) + 1e-7).sqrt()
    assert backbone.source_head is not None
    with torch.no_grad():
        ours = backbone.source_head(backbone.features(clip))
        assert torch.allclose(ours, theirs(given).logits, atol=1e-4)


def test_layers_can_be_weighted(folder: Callable[[str], Path]) -> None:
    backbone = load(folder("wav2vec2"), "wav2vec2", pooling="layers")
    inputs = batch(backbone)
    assert backbone.module.layer_weights.requires_grad
    assert backbone.module.layer_weights.tolist() == [0.25] * 4, "as the memory was before"
    plain = load(folder("wav2vec2"), "wav2vec2")
    with torch.no_grad():
        assert not torch.allclose(backbone.features(inputs), plain.features(inputs), atol=1e-3)
    backbone.verify(inputs)
    model = model_of(backbone)
    model.thaw("all")
    assert not any(p.requires_grad for n, p in backbone.module.named_parameters() if "feature_extractor" in n)
    with pytest.raises(BackboneError, match="cannot weight its layers"):
        load(folder("ast"), "ast", pooling="layers")
    with pytest.raises(ConfigError, match="did you mean 'mean'"):
        load(folder("wav2vec2"), "wav2vec2", pooling="meen")


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_is_drawn_when_not_training(family: str, folder: Callable[[str], Path]) -> None:
    kind = config(family)
    drawn = [getattr(kind, name, 0) for name in ("layerdrop", "encoder_layerdrop", "mask_time_prob")]
    backbone = load(folder(family), family)
    inputs = batch(backbone)
    backbone.train()
    for part in backbone.modules():  # all but masking and skipped layers, which no layer's p tells
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    for part in backbone.modules():
        for name in ("dropout", "attention_dropout", "activation_dropout"):
            if isinstance(getattr(part, name, None), float):
                setattr(part, name, 0.0)
    with torch.no_grad():
        found = [backbone.features(inputs) for _ in range(3)]
    assert torch.equal(found[0], found[1]), f"drawn by the network itself: {drawn}"
    assert torch.equal(found[0], found[2])


def test_the_zoo_covers_what_is_promised(tmp_path: Path) -> None:
    assert {"wav2vec2", "hubert", "wavlm", "ast", "whisper"} <= set(FAMILIES)
    assert make("wav2vec2", tmp_path).spec.form == "standardised"
