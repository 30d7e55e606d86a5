"""Language models of transformers: BERT and its relatives.

Features are the mean over real tokens of the last layer ("mean", the default), its first token ("cls"), or what the
family's own classifier sees ("native", the default where the weights hold a trained classifier): only the last can be
opened by transformers' own pipeline.
"""

from __future__ import annotations

import inspect
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from headstart.core import manifest
from headstart.core.errors import BackboneError
from headstart.data.modalities.text import TextSpec
from headstart.data.texts import vocabulary
from headstart.models.intakes.text import Intake
from headstart.models.wanted import Wanted

if TYPE_CHECKING:
    from headstart.models.backbone import Backbone

CLASSIFIES = "ForSequenceClassification"
HEADS = ("classifier.", "pre_classifier.", "pooler.", "head.", "score.", "summary.", "sequence_summary.")
VOCABULARIES = (
    *("tokenizer.json", "vocab.txt", "vocab.json", "merges.txt"),
    *("spiece.model", "sentencepiece.bpe.model", "spm.model"),
)
FILES = (*VOCABULARIES, "tokenizer_config.json", "special_tokens_map.json")
AFTER_PADDING = ("roberta", "xlm-roberta", "camembert", "xlm-roberta-xl", "mpnet", "longformer")
USUAL_LENGTH = 256  # tokens; longer texts are rare, and batches are padded to about their own longest only


def networks(config: Any, pooling: str) -> list[Any]:
    """The classes to look the configuration up in, the wanted one first."""
    from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, MODEL_MAPPING

    return [MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING] if pooling == "native" else [MODEL_MAPPING]


def prepare(config: Any, pooling: str) -> None:
    """No cache of keys and values: nothing is generated."""
    if hasattr(config, "use_cache"):
        config.use_cache = False


def spec(stored: dict[str, Any], folder: Path, config: Any, wanted: Wanted) -> TextSpec:
    """The tokenizer in the folder, cut at the wanted length, the usual one, or what the network takes.

    Raises:
        BackboneError: no tokenizer, or more tokens than the network has positions for.
    """
    try:
        content = _content(folder)
        found = TextSpec(content, mask=vocabulary.mask_id(content))
        known = vocabulary.reader(content).get_vocab_size()
    except Exception as error:  # whatever a damaged or exotic tokenizer raises
        remedy = "the folder needs tokenizer.json, or what transformers' AutoTokenizer can turn into one"
        raise BackboneError(
            f"its tokenizer cannot be read ({str(error)[:200]})", where=str(folder), remedy=remedy
        ) from error
    if known > int(getattr(config, "vocab_size", known)):
        what = f"its tokenizer knows {known:,} tokens, the network only {config.vocab_size:,}"
        raise BackboneError(what, where=str(folder), remedy="do the two belong together?")
    takes = longest(config)
    if wanted.max_length is not None and wanted.max_length > takes:
        what = f"max_length {wanted.max_length} is more than the {takes} tokens that the network has positions for"
        raise BackboneError(what, where="data.max_length")
    return replace(found, max_length=wanted.max_length or min(USUAL_LENGTH, takes))


def _content(folder: Path) -> str:
    """What a tokenizer.json of the folder holds, or would hold."""
    file = folder / "tokenizer.json"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    if not any((folder / name).is_file() for name in VOCABULARIES):  # transformers would make up an empty one
        raise FileNotFoundError("there is none")
    from transformers import AutoTokenizer

    return str(AutoTokenizer.from_pretrained(folder, local_files_only=True).backend_tokenizer.to_str())


def longest(config: Any) -> int:
    """Tokens that the network has positions for; RoBERTa's begin after its padding token."""
    positions = getattr(config, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions < 4:
        return 512
    return positions - (int(getattr(config, "pad_token_id", 1) or 0) + 1 if config.model_type in AFTER_PADDING else 0)


def adapt(module: nn.Module, config: Any, missing: list[str], pooling: str, channels: int) -> None:
    """Take off a pooler that nothing reads: it would hold weights without a gradient."""
    if pooling != "native" and isinstance(getattr(module, "pooler", None), nn.Module):
        module.pooler = None  # type: ignore[assignment]


def intake(module: nn.Module, config: Any, spec: TextSpec, pooling: str) -> Intake:
    """Token types are given to networks that know more than one."""
    takes = "token_type_ids" in inspect.signature(module.forward).parameters
    return Intake(spec, pooling, types=takes and int(getattr(config, "type_vocab_size", 0) or 0) > 1)


def call(module: nn.Module, config: Any, spec: TextSpec) -> dict[str, Any]:
    """Nothing besides the tokens."""
    return {}


def write(backbone: Backbone, config: dict[str, Any], folder: Path) -> str:
    """Write the tokenizer's files; the class that opens the folder."""
    spec: TextSpec = backbone.spec
    manifest.write_text(folder / "tokenizer.json", spec.tokenizer)
    names = {token["id"]: token["content"] for token in json.loads(spec.tokenizer).get("added_tokens", [])}
    pad = names.get(config.get("pad_token_id", 0) or 0)
    known = {
        "model_max_length": spec.max_length,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_input_names": ["input_ids", *(["token_type_ids"] if backbone.intake.types else []), "attention_mask"],
    }
    manifest.write_json(folder / "tokenizer_config.json", known | ({"pad_token": pad} if pad else {}))
    return "AutoModelForSequenceClassification"
