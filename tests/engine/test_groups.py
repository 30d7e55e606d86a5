"""Parameter groups: rates by depth as in timm and fastai, no frozen parameter, every trainable one exactly once."""

import pytest
import torch
from torch import nn

from headstart.core.errors import ConfigError, TrainingError
from headstart.engine.groups import check, groups, rates_by_depth

BLOCKS = ("layer1.0", "layer1.1", "layer2.0", "layer2.1")


@pytest.fixture
def model():
    return nn.ModuleDict(
        {
            "stem": nn.Conv2d(3, 4, 3),
            "blocks": nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)) for _ in range(4)),
            "head": nn.Linear(4, 2),
        }
    )


@pytest.fixture
def depths(model):
    found = {}
    for name, _ in model.named_parameters():
        kind, *rest = name.split(".")
        if kind != "head":
            found[name] = 0 if kind == "stem" else int(rest[0]) + 1
    return found


def rate_of(made, name):
    (rate,) = [group["lr"] for group in made if name in group["names"]]
    return rate


def test_rates_fall_with_depth_and_the_head_has_its_multiple(model, depths):
    made = groups(model.named_parameters(), depths, 4, lr=1e-3, layer_decay=0.5, head_multiple=10)
    assert rate_of(made, "head.weight") == pytest.approx(1e-2)
    assert rate_of(made, "blocks.3.0.weight") == pytest.approx(1e-3)
    assert rate_of(made, "blocks.0.0.weight") == pytest.approx(1e-3 / 8)
    assert rate_of(made, "stem.weight") == pytest.approx(1e-3 / 16)
    assert [group["depth"] for group in made] == sorted(group["depth"] for group in made)
    assert all(group["base_lr"] == group["lr"] for group in made)


def test_the_head_rate_can_be_given_outright(model, depths):
    made = groups(model.named_parameters(), depths, 4, lr=1e-4, head_lr=3e-3, layer_decay=0.9)
    assert rate_of(made, "head.bias") == 3e-3


def test_frozen_parameters_stay_out_and_all_others_enter_once(model, depths):
    for parameter in (*model["stem"].parameters(), *model["blocks"][:2].parameters()):
        parameter.requires_grad_(False)
    made = groups(model.named_parameters(), depths, 4, lr=1e-3, weight_decay=0.1)
    entered = [id(parameter) for group in made for parameter in group["params"]]
    assert sorted(entered) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    optimizer = torch.optim.AdamW(made)
    assert len(optimizer.param_groups) == len(made)


def test_biases_and_norms_do_not_decay(model, depths):
    made = groups(model.named_parameters(), depths, 4, lr=1e-3, weight_decay=0.1, no_decay=["head.weight"])
    decaying = {name for group in made if group["weight_decay"] for name in group["names"]}
    assert decaying == {"stem.weight", *(f"blocks.{index}.0.weight" for index in range(4))}
    assert all(group["weight_decay"] in (0.0, 0.1) for group in made)
    wide = {name: nn.Parameter(torch.ones(2, 2)) for name in ("weight", "relative.bias")}
    made = groups(wide.items(), {}, 4, lr=1e-3, weight_decay=0.1)
    assert {name for group in made if group["weight_decay"] for name in group["names"]} == {"weight"}


def test_check_catches_planted_faults(model, depths):
    made = groups(model.named_parameters(), depths, 4, lr=1e-3)
    named = list(model.named_parameters())
    check(named, made)
    with pytest.raises(TrainingError, match="twice"):
        check(named, [*made, made[0]])
    with pytest.raises(TrainingError, match="not in the optimizer"):
        check(named, made[1:])
    model["head"].bias.requires_grad_(False)
    with pytest.raises(TrainingError, match="frozen, yet"):
        check(named, made)


def test_a_wrapper_that_renames_parameters_is_caught(model, depths):
    """Otherwise no name would be found among the depths and the whole backbone would train at the head's rate."""
    wrapped = nn.ModuleDict({"module": model})
    with pytest.raises(TrainingError, match="do not belong"):
        groups(wrapped.named_parameters(), depths, 4, lr=1e-3)


def test_nothing_to_train_is_said(model, depths):
    model.requires_grad_(False)
    with pytest.raises(TrainingError, match="no parameter trains"):
        groups(model.named_parameters(), depths, 4, lr=1e-3)


def test_rates_by_name_as_in_the_tutorials():
    rates = {"stem": 1e-6, "layer1": 1e-5, "layer2": 1e-4, "layer2.1": 2e-4, "head": 1e-3}
    assert rates_by_depth(BLOCKS, lr=1.0, rates=rates) == [1e-6, 1e-5, 1e-5, 1e-4, 2e-4, 1e-3]
    del rates["stem"], rates["head"]
    assert rates_by_depth(BLOCKS, lr=1e-4, head_multiple=5, rates=rates) == [1e-5, 1e-5, 1e-5, 1e-4, 2e-4, 5e-4]


def test_rates_by_name_must_fit_the_blocks():
    with pytest.raises(ConfigError) as caught:
        rates_by_depth(BLOCKS, lr=1.0, rates={"layer1": 1e-5, "layer3": 1e-4, "layer": 1e-3})
    said = str(caught.value)
    assert "no rate for block 'layer2.0'" in said
    assert "no rate for block 'layer2.1'" in said
    assert "no block is called 'layer3'" in said
    assert "no block is called 'layer'" in said


@pytest.mark.parametrize(
    "settings", [{"lr": 0.0}, {"lr": 1.0, "rates": {"0": 0.0, "1": 1.0}}, {"lr": 1.0, "layer_decay": -1.0}]
)
def test_rates_must_be_positive(settings):
    with pytest.raises(ConfigError, match="positive"):
        rates_by_depth(4, **settings)


def test_rates_and_decay_equal_timms_on_a_vit():
    import timm
    from timm.optim import param_groups_layer_decay

    vit = timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=5, depth=4)
    depths = {}
    for name, _ in vit.named_parameters():
        if name.startswith("blocks."):
            depths[name] = int(name.split(".")[1]) + 1
        elif not name.startswith("head."):
            depths[name] = 4 if name.startswith("norm.") else 0
    theirs = {}
    for group in param_groups_layer_decay(vit, weight_decay=0.05, layer_decay=0.7):
        for parameter in group["params"]:
            theirs[id(parameter)] = (group["lr_scale"] * 1e-3, group["weight_decay"])
    lr = 1e-3 * 0.7
    made = groups(vit.named_parameters(), depths, 4, lr=lr, head_lr=1e-3, layer_decay=0.7, weight_decay=0.05)
    ours = {id(p): (group["lr"], group["weight_decay"]) for group in made for p in group["params"]}
    assert ours.keys() == theirs.keys()
    for key, (rate, decay) in ours.items():
        assert rate == pytest.approx(theirs[key][0], rel=1e-12)
        assert decay == theirs[key][1]
