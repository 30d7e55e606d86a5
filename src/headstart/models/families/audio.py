"""Networks of transformers that hear: wav2vec2 and its relatives, AST, Whisper's encoder.

Features are what the family's own audio-classification head sees, and where its projection is untrained it starts as
the identity: the mean over frames of the last layer ("mean"), or of all layers, weighted, which is learned ("layers",
Yang et al. 2021). transformers' own pipeline opens what is saved.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from headstart.core import manifest
from headstart.core.errors import BackboneError, ConfigError
from headstart.core.registry import suggest
from headstart.data.modalities.audio import AudioSpec
from headstart.models.intakes.audio import Intake
from headstart.models.wanted import Wanted

if TYPE_CHECKING:
    from headstart.models.backbone import Backbone

CLASSIFIES = "ForSequenceClassification"
HEADS = ("classifier.", "projector.", "layer_weights", "masked_spec_embed")
POOLINGS = ("mean", "layers")
SPECTROGRAMS = ("audio-spectrogram-transformer", "whisper")


def networks(config: Any, pooling: str) -> list[Any]:
    """The classes to look the configuration up in."""
    from transformers import MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING

    if pooling not in POOLINGS:
        what = f"unknown pooling '{pooling}' of sounds{suggest(pooling, POOLINGS)}"
        raise ConfigError(what, where="head.pooling", remedy=f"known: {', '.join(POOLINGS)}")
    return [MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING]


def prepare(config: Any, pooling: str) -> None:
    """No masking and no skipped layers by the network's own chance; a projection as wide as the layers."""
    config.apply_spec_augment = False  # some families mask where the configuration does not say
    for name in ("layerdrop", "encoder_layerdrop"):
        if hasattr(config, name):
            setattr(config, name, 0.0)
    if config.model_type == "wavlm":  # its masks are of two types, of which torch warns in every process
        warnings.filterwarnings("ignore", "Support for mismatched key_padding_mask", UserWarning)
    if hasattr(config, "use_weighted_layer_sum"):
        config.use_weighted_layer_sum = pooling == "layers"
    elif pooling == "layers":
        raise BackboneError(f"'{config.model_type}' cannot weight its layers", where="head.pooling")


def spec(stored: dict[str, Any], folder: Path, config: Any, wanted: Wanted) -> AudioSpec:
    """The spec of ``preprocessor_config.json``, with the wanted window.

    Raises:
        BackboneError: the network hears no such window.
    """
    rate = int(stored.get("sampling_rate") or 16_000)
    if config.model_type == "whisper":
        seconds = float(2 * config.max_source_positions * 160 / rate)
        if wanted.seconds not in (None, seconds):
            what = f"Whisper hears windows of {seconds:g} s, and no others"
            raise BackboneError(what, where="data.seconds", remedy="leave it out: what is shorter is filled up")
        return AudioSpec(rate, seconds, "whisper", bins=int(config.num_mel_bins))
    if config.model_type == "audio-spectrogram-transformer":
        frames = int(config.max_length)
        if wanted.seconds is not None and wanted.seconds > frames / 100:
            what = f"the network hears windows of at most {frames / 100:g} s"
            remedy = "leave it out: longer recordings are heard in several windows"
            raise BackboneError(what, where="data.seconds", remedy=remedy)
        return AudioSpec(
            rate,
            wanted.seconds or frames / 100,
            "fbank",
            bins=int(config.num_mel_bins),
            frames=frames,
            mean=float(stored.get("mean", -4.2677393)),
            spread=float(stored.get("std", 4.5689974)),
        )
    return AudioSpec(rate, wanted.seconds, "standardised" if stored.get("do_normalize", True) else "waveform")


def adapt(module: nn.Module, config: Any, missing: list[str], pooling: str, channels: int) -> None:
    """An untrained projection becomes the identity: a random one would only blur the features; layers weigh alike."""
    if "layer_weights" in missing:  # transformers leaves them as the memory was
        with torch.no_grad():
            module.layer_weights.fill_(1 / len(module.layer_weights))  # type: ignore[operator, arg-type]
    projector = getattr(module, "projector", None)
    if not isinstance(projector, nn.Linear) or not any(name.startswith("projector.") for name in missing):
        return
    width = projector.in_features
    config.classifier_proj_size = width
    made = nn.Linear(width, width)
    with torch.no_grad():
        made.weight.copy_(torch.eye(width))
        made.bias.zero_()
    module.projector = made
    module.classifier = nn.Linear(width, config.num_labels)


def intake(module: nn.Module, config: Any, spec: AudioSpec, pooling: str) -> Intake:
    """Those that read samples are told which are real; those that read spectrograms were trained without a mask."""
    return Intake(spec, masked=config.model_type not in SPECTROGRAMS)


def call(module: nn.Module, config: Any, spec: AudioSpec) -> dict[str, Any]:
    """Nothing besides the samples."""
    return {}


def write(backbone: Backbone, config: dict[str, Any], folder: Path) -> str:
    """Write the feature extractor's file; the class that opens the folder."""
    spec: AudioSpec = backbone.spec
    kind = {"fbank": "ASTFeatureExtractor", "whisper": "WhisperFeatureExtractor"}.get(spec.form)
    told: dict[str, Any] = {
        "feature_extractor_type": kind or "Wav2Vec2FeatureExtractor",
        "sampling_rate": spec.rate,
        "padding_value": 0.0,
    }
    if spec.form == "fbank":
        told |= {"num_mel_bins": spec.bins, "max_length": spec.frames, "mean": spec.mean, "std": spec.spread}
        told |= {"do_normalize": True, "feature_size": 1, "return_attention_mask": False}
    elif spec.form == "whisper":
        told |= {"feature_size": spec.bins, "chunk_length": round(spec.seconds or 30), "hop_length": 160, "n_fft": 400}
    else:
        told |= {"do_normalize": spec.form == "standardised", "feature_size": 1, "return_attention_mask": True}
    manifest.write_json(folder / "preprocessor_config.json", told)
    return "AutoModelForAudioClassification"
