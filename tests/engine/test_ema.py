"""The moving average: the closed form, less variance, buffers too, nothing non-finite, bit-equal continuation."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from headstart.core.errors import ArtefactError, ConfigError
from headstart.engine.ema import EMA, finite


class Point(nn.Module):
    def __init__(self, value=0.0):
        super().__init__()
        self.at = nn.Parameter(torch.full((4,), value))


def test_the_average_has_its_closed_form():
    point = Point(5.0)
    ema = EMA(point, decay=0.9)
    expected = torch.full((4,), 5.0)
    for step in range(1, 41):
        point.at.data.fill_(float(step))
        assert ema.update(point)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    torch.testing.assert_close(ema.averages["at"], expected)
    assert [ema.decay_at(update) for update in (1, 80, 10**6)] == [pytest.approx(2 / 11), 0.9, 0.9]


def test_the_warm_up_forgets_the_start():
    """Without it, a decay of 0.999 would keep 99 % of random weights after ten updates."""
    point = Point(100.0)
    ema = EMA(point, decay=0.999)
    point.at.data.fill_(1.0)
    for _ in range(10):
        ema.update(point)
    assert (ema.averages["at"] < 1.01).all()


def test_averaging_lowers_the_variance_on_a_noisy_quadratic():
    """Polyak & Juditsky: SGD at a constant rate keeps jumping around the minimum, its average does not."""
    torch.manual_seed(0)
    point = Point(3.0)
    point.at = nn.Parameter(torch.full((500,), 3.0))
    ema = EMA(point, decay=0.95)
    for _ in range(400):
        gradient = point.at.data + torch.randn(500)
        point.at.data -= 0.3 * gradient
        ema.update(point)
    own, averaged = point.at.data.square().mean(), ema.averages["at"].square().mean()
    assert averaged < own / 5


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))


def test_buffers_are_averaged_and_counters_copied():
    model = network()
    ema = EMA(model, decay=0.5)
    model[1].running_mean.fill_(8.0)
    model[1].num_batches_tracked.fill_(7)
    ema.update(model)
    share = 1 - 2 / 11
    torch.testing.assert_close(ema.averages["1.running_mean"], torch.full((4,), 8.0 * share))
    assert ema.averages["1.num_batches_tracked"] == 7


@pytest.mark.parametrize("bn", ["frozen_eval", "eval", "train"])
def test_what_is_frozen_has_no_average_and_what_moves_has_one(model, bn):
    """Statistics of frozen BatchNorm follow the data under the policy ``train``, and under no other."""
    net = model()
    net.bn = bn
    net.thaw(1)
    net.eval()
    averages = set(EMA(net).averages)
    assert not any(part.training for part in net.modules()), "asking has changed the modes"
    trains = {name for name, parameter in net.named_parameters() if parameter.requires_grad}
    assert {name for name in averages if name in dict(net.named_parameters())} == trains
    assert ("backbone.module.stem.1.running_mean" in averages) == (bn == "train")
    assert any("running_mean" in name for name in averages), "the thawed block has BatchNorm too"


@pytest.mark.parametrize("place", ["0.weight", "1.running_var"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_non_finite_value_never_enters(place, value):
    model = network()
    ema = EMA(model, decay=0.9)
    ema.update(model)
    before = {name: average.clone() for name, average in ema.averages.items()}
    model.state_dict()[place].view(-1)[1] = value
    assert not ema.update(model)
    assert ema.updates == 1
    assert all(torch.equal(before[name], ema.averages[name]) for name in before)
    assert not finite([torch.ones(3), torch.tensor([value])])
    assert finite([torch.full((3,), 3e38)])


def test_applied_inside_and_its_own_values_afterwards():
    model = network()
    ema = EMA(model, decay=0.9)
    with torch.no_grad():
        model[3].weight.add_(1.0)
    ema.update(model)
    own = {name: value.clone() for name, value in model.state_dict().items()}
    with ema.applied(model):
        assert torch.equal(model[3].weight, ema.averages["3.weight"])
        assert not torch.equal(model[3].weight, own["3.weight"])
    with pytest.raises(KeyError, match="inside"), ema.applied(model):
        raise KeyError("inside")
    assert all(torch.equal(own[name], value) for name, value in model.state_dict().items())


def drift(model, ema, steps):
    for step in steps:
        torch.manual_seed(step)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        ema.update(model)


def test_a_saved_average_continues_bit_equal(tmp_path):
    straight, model = network(), network()
    whole, first = EMA(straight, 0.9), EMA(model, 0.9)
    drift(straight, whole, range(20))
    drift(model, first, range(12))
    save_file(first.state_tensors(), tmp_path / "ema.safetensors")
    resumed = EMA(network(), 0.9)
    resumed.load_tensors(load_file(tmp_path / "ema.safetensors"))
    drift(model, resumed, range(12, 20))
    assert all(torch.equal(whole.averages[name], resumed.averages[name]) for name in whole.averages)
    assert resumed.updates == 20


def test_a_state_that_was_taken_does_not_move_with_the_average():
    model = network()
    ema = EMA(model, 0.9)
    state = ema.state_tensors()
    before = {name: value.clone() for name, value in state.items()}
    drift(model, ema, range(3))
    assert all(torch.equal(state[name], before[name]) for name in before)


def test_a_foreign_state_is_refused():
    state = EMA(network()).state_tensors()
    frozen = network()
    frozen[0].requires_grad_(False)
    with pytest.raises(ArtefactError):
        EMA(frozen).load_tensors(state)
    with pytest.raises(ConfigError):
        EMA(network(), decay=1.0)
