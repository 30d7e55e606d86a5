"""Heads: their formulas, how they start, and the rows of the source classifier."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from headstart.core.errors import ConfigError
from headstart.models import backbone, fresh, heads
from headstart.models.backbone import SourceHead
from headstart.models.model import Model

LABELS = ("tench", "hotdog, hot dog, red hot", "ant, emmet, pismire", "bee", "African elephant", "tabby, tabby cat")


@torch.no_grad()
def test_formulas() -> None:
    features = torch.randn(5, 7)
    linear, mlp, cosine = (heads.build(kind, 7, 3, hidden=4, seed=2).eval() for kind in heads.KINDS)
    assert torch.allclose(linear(features), features @ linear.last.weight.T + linear.last.bias, atol=1e-6)
    hidden = (features @ mlp.hidden.weight.T + mlp.hidden.bias).clamp_min(0)
    assert torch.allclose(mlp(features), hidden @ mlp.last.weight.T + mlp.last.bias, atol=1e-6)
    wanted = [[10 * nn.functional.cosine_similarity(f, w, dim=0) for w in cosine.last.weight] for f in features]
    assert torch.allclose(cosine(features), torch.tensor(wanted), atol=1e-5)
    assert cosine.scale.requires_grad


@pytest.mark.parametrize("kind", heads.KINDS)
def test_seeds_settings_and_dropout(kind: str) -> None:
    head = heads.build(kind, 7, 3, hidden=4, dropout=0.5, seed=1)
    torch.manual_seed(99)
    again, other = heads.build(kind, 7, 3, hidden=4, dropout=0.5, seed=1), heads.build(kind, 7, 3, hidden=4, seed=2)
    assert torch.equal(head.last.weight, again.last.weight)
    assert not torch.equal(head.last.weight, other.last.weight)
    rebuilt = heads.create(**head.settings())
    rebuilt.load_state_dict(head.state_dict())
    assert rebuilt.dropout.p == 0.5
    features = torch.randn(64, 7)
    assert torch.equal(head.eval()(features), rebuilt.eval()(features))
    assert not torch.equal(head.train()(features), head(features))


def test_zero_starts_at_ln_k_and_xavier_in_its_range() -> None:
    features, labels = torch.randn(20, 8), torch.arange(20) % 5
    zero = heads.build("linear", 8, 5, init="zero")
    assert nn.functional.cross_entropy(zero(features), labels).item() == pytest.approx(math.log(5))
    xavier = heads.build("mlp", 8, 5, hidden=16, init="xavier").last
    bound = math.sqrt(6 / (16 + 5))
    assert 0.8 * bound < xavier.weight.abs().max().item() <= bound
    assert not xavier.bias.any()


def test_names_match_however_they_are_written() -> None:
    classes = ["hot_dog", "Ants", "BEES", "african-elephant", "Tabby Cat", "sushi", "n02123045 tabby"]
    found = heads.matches(classes, LABELS)
    assert found == {"hot_dog": 1, "Ants": 2, "BEES": 3, "african-elephant": 4, "Tabby Cat": 5, "n02123045 tabby": 5}
    assert heads.matches(["not_hot_dog", "glass", "", "---"], LABELS) == {}


def test_source_rows_answer_as_the_source_did() -> None:
    source = SourceHead(torch.randn(6, 8), torch.randn(6), LABELS)
    features = torch.randn(10, 8)
    head = heads.build("linear", 8, 3, init="source", source=source, classes=["ants", "hot dog", "sushi"])
    full = source(features)
    logits = head(features)
    assert torch.allclose(logits[:, 0] - logits[:, 1], full[:, 2] - full[:, 1], atol=1e-5)
    average = features @ source.weight.mean(dim=0) + source.bias.mean()
    assert torch.allclose(logits[:, 0] - logits[:, 2], full[:, 2] - average, atol=1e-5)
    assert not head.last.weight[2].any()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"kind": "liner"}, "did you mean 'linear'"),
        ({"init": "zeros"}, "did you mean 'zero'"),
        ({"dropout": 1.5}, "dropout"),
        ({"init": "source"}, "its class names"),
        ({"init": "source", "kind": "mlp"}, "hidden layer"),
        (
            {"init": "source", "source": SourceHead(torch.zeros(6, 4), torch.zeros(6), LABELS), "classes": ["x"]},
            "none of",
        ),
    ],
)
def test_mistakes_are_named(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        heads.build(**({"kind": "linear", "feature_dim": 4, "num_classes": 1} | arguments))  # type: ignore[arg-type]
    assert words in str(caught.value)


@pytest.mark.parametrize("kind", heads.KINDS)
def test_a_head_drawn_anew_is_the_one_its_seed_builds(kind: str) -> None:
    head = heads.build(kind, 4, 3, hidden=5, seed=1)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.fill_(7.0)
    fresh.reinitialise(Model(backbone.load("builtin/tiny", image_size=32, pretrained=False), head, "abc"), 1)
    wanted = heads.build(kind, 4, 3, hidden=5, seed=2).state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in head.state_dict().items())
