"""Cached = live: what every backbone is put through, whatever it reads.

Shapes: B rows, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from headstart.models import heads, resume
from headstart.models.backbone import Backbone
from headstart.models.model import Model


def gradients(model: Model) -> dict[str, Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def check(backbone: Backbone, inputs: Tensor) -> None:
    """Features, logits and gradients from the cached output of several blocks are those of the whole network."""
    model = Model(backbone, heads.build("linear", backbone.feature_dim, 4, seed=1), "abcd")
    count = len(backbone.blocks)
    for k in sorted({1, count // 2, count - 1, count}):
        model.thaw(count - k)
        assert model.frozen_prefix == k
        model.eval()
        value = resume.record(backbone, k, inputs)
        with torch.no_grad():
            live = backbone.features(inputs)
            assert torch.equal(resume.features_from(backbone, k, value, len(inputs)), live)
            assert live.std(dim=0).max() > 1e-4, "all rows alike: parity would prove nothing"
        model.train()  # frozen parts stay in eval, so a record of the prefix holds in training too
        torch.manual_seed(7)
        (live_logits := model(inputs)).square().sum().backward()
        wanted = gradients(model)
        torch.manual_seed(7)
        with resume.resumed(backbone, k, value):
            (cached_logits := model(inputs)).square().sum().backward()
        found = gradients(model)
        assert torch.equal(live_logits, cached_logits)
        assert found.keys() == wanted.keys() == {n for n, p in model.named_parameters() if p.requires_grad}
        for parameter, gradient in wanted.items():
            assert torch.equal(found[parameter], gradient), (k, parameter)
