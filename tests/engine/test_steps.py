"""What a step of the loop does with the settings of a stage, against plain torch."""

from __future__ import annotations

import copy

import pytest
import torch

from headstart.stages.base import Training

RATE = 1e-2


@pytest.mark.parametrize(
    "own",
    [{"momentum": 0.0}, {"momentum": 0.0, "clip": 0.05}, {"momentum": 0.6}, {"momentum": 0.9, "weight_decay": 0.1}],
    ids=lambda own: ",".join(f"{key}={value}" for key, value in own.items()),
)
def test_steps_of_sgd_are_those_of_plain_torch(loop, model, own):
    """Three steps on one batch: gradients clipped by their global norm, Nesterov's momentum, decay of matrices."""
    given = {"clip": None, "weight_decay": 0.0, **own}
    plain = {"schedule": "constant", "warmup": 0.0, "head_multiple": 1.0, "layer_decay": 1.0, "bn": "eval"}
    net = model()
    net.bn = "eval"
    net.thaw(1)
    twin = copy.deepcopy(net)
    recipe = Training(epochs=1, batch_size=24, optimizer="sgd", lr=RATE, **plain, **given)
    training = loop(recipe, net=net, blocks=1)
    training.total = 3
    training.job.learner.train()
    update = next(training.job.stream.epoch(0))
    for step in range(3):
        training.state.updates = step
        training._update(update)

    twin.train()
    thawed = [parameter for parameter in twin.parameters() if parameter.requires_grad]
    decayed = {"params": [one for one in thawed if one.dim() > 1], "weight_decay": given["weight_decay"]}
    rest = {"params": [one for one in thawed if one.dim() <= 1], "weight_decay": 0.0}
    nesterov = {"momentum": given["momentum"], "nesterov": given["momentum"] > 0}
    optimizer = torch.optim.SGD([decayed, rest], lr=RATE, **nesterov)
    for _ in range(3):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(twin(update.inputs), update.targets).backward()
        if given["clip"] is not None:
            norm = torch.nn.utils.clip_grad_norm_(thawed, given["clip"])
            assert norm > given["clip"]
        optimizer.step()
    for (name, ours), theirs in zip(net.named_parameters(), twin.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6), name
