"""Tiny random networks of transformers that hear, saved as ``save_pretrained`` does, and sounds for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headstart.data.modalities.audio import PAD
from headstart.models import backbone as backbones
from headstart.models.backbone import Backbone

SMALL = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 48}
FRONT = {
    "conv_dim": (16, 16, 16),
    "conv_stride": (5, 4, 4),
    "conv_kernel": (10, 4, 4),
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}
CONVOLVED = ("wav2vec2", "hubert", "wavlm", "data2vec-audio", "sew", "unispeech")
SPECTROGRAMS = ("ast", "whisper")
FAMILIES = (*CONVOLVED, *SPECTROGRAMS)
SECONDS = 0.5


def config(family: str) -> Any:
    """A configuration of a few thousand parameters, with what the family draws in training left as it comes."""
    import transformers as hf

    whisper = {
        "d_model": 32,
        "encoder_layers": 3,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 48,
        "decoder_attention_heads": 2,
        "decoder_ffn_dim": 48,
        "max_source_positions": 50,
    }
    made = {
        "wav2vec2": lambda: hf.Wav2Vec2Config(**SMALL, **FRONT),
        "hubert": lambda: hf.HubertConfig(**SMALL, **FRONT),
        "wavlm": lambda: hf.WavLMConfig(**SMALL, **FRONT),
        "unispeech": lambda: hf.UniSpeechConfig(**SMALL, **FRONT),
        "data2vec-audio": lambda: hf.Data2VecAudioConfig(**SMALL, **FRONT, conv_pos_kernel_size=3),
        "sew": lambda: hf.SEWConfig(**SMALL, **FRONT, squeeze_factor=2),
        "ast": lambda: hf.ASTConfig(**SMALL, max_length=64, num_mel_bins=32),
        "whisper": lambda: hf.WhisperConfig(**whisper),
    }
    return made[family]()


def saved(family: str, folder: Path, classes: int = 0) -> Path:
    """The folder of a random network: a bare encoder as most are published, or one that classifies."""
    import transformers as hf

    torch.manual_seed(0)
    kind = config(family)
    if classes:
        kind.num_labels = classes
    module = (hf.AutoModelForAudioClassification if classes else hf.AutoModel).from_config(kind)
    module.save_pretrained(folder)
    return folder


def make(family: str, folder: Path, **given: Any) -> Backbone:
    """The backbone of such a folder, in windows of half a second (Whisper's own is one)."""
    if family != "whisper":
        given.setdefault("seconds", SECONDS)
    return backbones.load(str(saved(family, folder)), **given).eval()


def batch(backbone: Backbone, rows: int = 3, windows: int = 1) -> Tensor:
    """Different sounds, int16 (B, T); the second is short, the others fill their window."""
    generator = torch.Generator().manual_seed(1)
    size = (rows, windows * backbone.spec.window)
    made = (2000 * torch.randn(size, generator=generator) * torch.arange(1, rows + 1)[:, None]).to(torch.int16)
    made[1, 3 * backbone.spec.window // 5 :] = PAD
    return made
