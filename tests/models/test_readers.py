"""Language models: features are what transformers gives, padding changes nothing, blocks resume, folders open again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._pytree import tree_leaves

from headstart.core.errors import BackboneError, ConfigError
from headstart.data.modalities import text
from headstart.models import backbone as backbones
from headstart.models import heads, resume
from headstart.models.backbone import Backbone
from headstart.models.model import Model

from .. import words

TEXTS, _ = words.reviews(6, seed=1)
PAIR = ("the film was good", "it was very bad and dull")
CLASSES = ("bad", "good", "plain")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``folder("bert")``: a tiny random network as transformers saves it; made once."""
    made: dict[tuple[str, str], Path] = {}

    def make(family: str, kind: str = "AutoModel") -> Path:
        if (family, kind) not in made:
            made[family, kind] = words.network(tmp_path_factory.mktemp(family), family, kind=kind, **_labels(kind))
        return made[family, kind]

    return make


def _labels(kind: str) -> dict[str, Any]:
    return {"num_labels": 3} if kind == "AutoModelForSequenceClassification" else {}


def inputs(backbone: Backbone, items: list[Any]) -> torch.Tensor:
    return torch.from_numpy(text.collate([text.decode(item, backbone.spec) for item in items]))


def given(backbone: Backbone, items: list[Any]) -> dict[str, torch.Tensor]:
    """What transformers' own tokenizer makes of the items."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    theirs = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(backbone.spec.tokenizer), pad_token="[PAD]", sep_token="[SEP]"
    )
    firsts = [item if isinstance(item, str) else item[0] for item in items]
    seconds = [None if isinstance(item, str) else item[1] for item in items]
    both = None if None in seconds else seconds
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if backbone.intake.types else [])]
    made = theirs(firsts, both, padding=True, return_tensors="pt", return_token_type_ids=True)
    return {name: made[name] for name in names}


@pytest.mark.parametrize("family", words.FAMILIES)
def test_mean_and_first_token_are_those_of_transformers(family: str, folder: Callable[..., Path]) -> None:
    from transformers import AutoModel

    theirs = AutoModel.from_pretrained(folder(family)).eval()
    for items in (TEXTS, [PAIR, PAIR[::-1]]):
        for pooling in ("mean", "cls"):
            backbone = backbones.load(str(folder(family)), pooling=pooling).eval()
            own = given(backbone, items)
            with torch.no_grad():
                sequence = theirs(**own).last_hidden_state
                mask = own["attention_mask"].unsqueeze(-1)
                wanted = (sequence * mask).sum(1) / mask.sum(1) if pooling == "mean" else sequence[:, 0]
                found = backbone.features(inputs(backbone, items))
            assert torch.allclose(found, wanted, rtol=1e-5, atol=1e-6)
            assert backbone.feature_dim == 32
            assert wanted.std() > 0.01


@pytest.mark.parametrize("family", words.FAMILIES)
def test_padding_changes_no_feature(family: str, folder: Callable[..., Path]) -> None:
    backbone = backbones.load(str(folder(family))).eval()
    batch = inputs(backbone, TEXTS)
    wider = torch.nn.functional.pad(batch, (0, 9))
    wider[:, 0, batch.shape[2] :] = text.PAD
    with torch.no_grad():
        alone = torch.cat([backbone.features(inputs(backbone, [item])) for item in TEXTS])
        assert (backbone.features(batch) - alone).abs().max() < 1e-5
        assert (backbone.features(wider) - alone).abs().max() < 1e-5
        wider[:, 0, batch.shape[2] :] = 0  # tokens instead of nothing: now it must be seen
        assert (backbone.features(wider) - alone).abs().max() > 1e-3


@pytest.mark.parametrize("family", words.FAMILIES)
def test_blocks_resume_bit_for_bit(family: str, folder: Callable[..., Path]) -> None:
    backbone = backbones.load(str(folder(family))).eval()
    batch = inputs(backbone, TEXTS)
    verified = backbone.verify(batch)
    assert verified.ok, verified.reason
    if family != "albert":  # whose layers share their weights: one block
        assert len(backbone.blocks) >= 3, backbone.blocks
    with torch.no_grad():
        wanted = backbone.features(batch)
        for k in range(1, len(backbone.blocks) + 1):
            value = resume.record(backbone, k, batch)
            assert torch.equal(resume.features_from(backbone, k, value, len(batch)), wanted)
            changed = tree_leaves(value["value"])[0]
            changed.add_(torch.randn(changed.shape[-1]))
            assert not torch.equal(resume.features_from(backbone, k, value, len(batch)), wanted)


@pytest.mark.parametrize(
    ("family", "pooling"),
    [*((family, "mean") for family in words.FAMILIES), ("bert", "cls"), ("bert", "native"), ("modernbert", "native")],
)
def test_a_saved_model_answers_the_same(family: str, pooling: str, folder: Callable[..., Path], tmp_path: Path) -> None:
    backbone = backbones.load(str(folder(family)), pooling=pooling).eval()
    model = Model(backbone, heads.build("linear", backbone.feature_dim, 3, seed=1), CLASSES).eval()
    torch.nn.init.normal_(model.head.last.weight)
    batch = inputs(backbone, TEXTS)
    model.save(tmp_path / "model", examples=batch)
    again = Model.load(tmp_path / "model")
    with torch.no_grad():
        assert torch.equal(again(batch), model(batch))
    assert again.backbone.spec == backbone.spec
    assert again.backbone.intake.pooling == pooling


@pytest.mark.parametrize("family", words.FAMILIES)
def test_transformers_opens_what_has_its_own_pooling(family: str, folder: Callable[..., Path], tmp_path: Path) -> None:
    from transformers import pipeline

    backbone = backbones.load(str(folder(family, "AutoModelForSequenceClassification"))).eval()
    assert backbone.intake.pooling == "native"
    assert backbone.source_head is not None
    model = Model(backbone, heads.build("linear", backbone.feature_dim, 3, seed=1), CLASSES).eval()
    torch.nn.init.normal_(model.head.last.weight)
    model.save(tmp_path / "model", examples=inputs(backbone, TEXTS))
    with torch.no_grad():
        wanted = model(inputs(backbone, TEXTS)).softmax(1).numpy()
        pairs = model(inputs(backbone, [PAIR])).softmax(1).numpy()
    ask = pipeline("text-classification", str(tmp_path / "model"), top_k=None, device="cpu")
    found = [{each["label"]: each["score"] for each in row} for row in ask(TEXTS, batch_size=4)]
    assert np.abs(np.array([[row[name] for name in CLASSES] for row in found]) - wanted).max() < 1e-5
    answer = {each["label"]: each["score"] for each in ask({"text": PAIR[0], "text_pair": PAIR[1]})}
    assert np.abs(np.array([answer[name] for name in CLASSES]) - pairs[0]).max() < 1e-5
    assert "AutoModelForSequenceClassification" in (tmp_path / "model" / "README.md").read_text()


def test_transformers_knows_that_there_are_several_labels(folder: Callable[..., Path], tmp_path: Path) -> None:
    from transformers import pipeline

    backbone = backbones.load(str(folder("bert", "AutoModelForSequenceClassification"))).eval()
    model = Model(backbone, heads.build("linear", backbone.feature_dim, 3, seed=1), CLASSES, task="multilabel").eval()
    model.save(tmp_path / "model", examples=inputs(backbone, TEXTS))
    with torch.no_grad():
        wanted = model(inputs(backbone, TEXTS)).sigmoid().numpy()
    ask = pipeline("text-classification", str(tmp_path / "model"), top_k=None, device="cpu")
    found = [{each["label"]: each["score"] for each in row} for row in ask(TEXTS, batch_size=4)]
    assert np.abs(np.array([[row[name] for name in CLASSES] for row in found]) - wanted).max() < 1e-5


def test_a_readme_says_when_only_headstart_opens_the_folder(folder: Callable[..., Path], tmp_path: Path) -> None:
    backbone = backbones.load(str(folder("bert"))).eval()
    Model(backbone, heads.build("linear", backbone.feature_dim, 3), CLASSES).eval().save(tmp_path / "model")
    assert not (tmp_path / "model" / "config.json").exists()
    assert "Only Headstart opens this folder" in (tmp_path / "model" / "README.md").read_text()


def test_a_trained_classifier_is_what_its_network_had(folder: Callable[..., Path]) -> None:
    from transformers import AutoModelForSequenceClassification

    place = folder("roberta", "AutoModelForSequenceClassification")
    backbone = backbones.load(str(place)).eval()
    theirs = AutoModelForSequenceClassification.from_pretrained(place).eval()
    with torch.no_grad():
        wanted = theirs(**given(backbone, TEXTS)).logits
        assert backbone.source_head is not None
        assert torch.allclose(backbone.source_head(backbone.features(inputs(backbone, TEXTS))), wanted, atol=1e-6)


def test_mistakes_are_named(folder: Callable[..., Path], tmp_path: Path) -> None:
    place = folder("bert")
    with pytest.raises(ConfigError, match="unknown pooling 'meen', did you mean 'mean'"):
        backbones.load(str(place), pooling="meen")
    with pytest.raises(BackboneError, match="more than the 512 tokens"):
        backbones.load(str(place), max_length=513)
    assert backbones.load(str(folder("roberta"))).spec.max_length == 129  # its positions begin after its padding
    assert backbones.load(str(place), max_length=20).spec.max_length == 20
    with pytest.raises(BackboneError, match="knows 59 tokens, the network only 20"):
        backbones.load(str(words.network(tmp_path / "small", vocab_size=20)))
    bare = words.network(tmp_path / "bare")
    (bare / "tokenizer.json").write_text("{}")
    with pytest.raises(BackboneError, match="its tokenizer cannot be read"):
        backbones.load(str(bare))
    (bare / "tokenizer.json").unlink()
    with pytest.raises(BackboneError, match=r"needs tokenizer\.json"):
        backbones.load(str(bare))


def test_a_vocabulary_of_older_folders_is_turned_into_a_tokenizer(tmp_path: Path) -> None:
    place = words.network(tmp_path / "old")
    vocabulary = json.loads((place / "tokenizer.json").read_text())["model"]["vocab"]
    (place / "tokenizer.json").unlink()
    (place / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.__getitem__)) + "\n")
    spec = backbones.load(str(place)).spec
    assert text.decode(PAIR, spec).tolist() == text.decode(PAIR, text.TextSpec(words.tokenizer())).tolist()
    assert spec.mask == 4
