"""Keyed randomness: the same key the same draws, another key unrelated ones."""

import numpy as np
import pytest

from headstart.core import keyed


def test_the_same_key_gives_the_same_draws_and_keeps_no_state():
    first = keyed.generator(42, "mix", 0, 3).random(5)
    keyed.generator(42, "mix", 0, 4).random(100)
    assert np.array_equal(first, keyed.generator(42, "mix", 0, 3).random(5))


def test_draws_are_fixed_across_versions():
    """The hash is part of what a run records: a changed one would silently break every resume."""
    assert keyed.digest(42, "order", 0, 1) == 0xF0E05A4C70E5568B06E795866B2984D7
    assert keyed.order(42, 0, 0, 8).tolist() == [2, 6, 3, 5, 0, 4, 7, 1]


def test_keys_do_not_collide():
    keys = [(1, 23), (12, 3), (123,), ("1", 23), (1, "23"), ("1,23",), (1, 2, 3), ("12", 3), (-1, 23), (0, 1, 23)]
    assert len({keyed.digest(0, *key) for key in keys}) == len(keys)
    grid = {keyed.digest(seed, stage, row) for seed in range(5) for stage in range(5) for row in range(200)}
    assert len(grid) == 5 * 5 * 200


def test_numpy_integers_are_integers_and_floats_are_refused():
    assert keyed.digest(np.int64(3), np.int32(4)) == keyed.digest(3, 4)
    with pytest.raises(TypeError):
        keyed.digest(3, 0.5)


def test_torch_seeds_fit_and_differ():
    seeds = {keyed.torch_seed(42, "step", 0, step) for step in range(1000)}
    assert len(seeds) == 1000
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_neighbouring_keys_are_unrelated():
    draws = np.array([keyed.generator(0, "sample", row).random(2) for row in range(2000)])
    assert abs(draws.mean() - 0.5) < 0.02
    assert abs(np.corrcoef(draws[:-1, 0], draws[1:, 0])[0, 1]) < 0.07
    assert abs(np.corrcoef(draws[:, 0], draws[:, 1])[0, 1]) < 0.07


def test_every_epoch_has_its_own_order_of_all_rows():
    orders = [keyed.order(42, 0, epoch, 50) for epoch in range(3)] + [keyed.order(42, 1, 0, 50)]
    assert all(np.array_equal(np.sort(order), np.arange(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4


def test_weighted_order_follows_the_weights():
    drawn = keyed.weighted_order(42, 0, 0, [1.0, 3.0, 0.0, 4.0], total=8000)
    shares = np.bincount(drawn, minlength=4) / 8000
    assert shares == pytest.approx([0.125, 0.375, 0.0, 0.5], abs=0.03)
    assert np.array_equal(drawn, keyed.weighted_order(42, 0, 0, [1.0, 3.0, 0.0, 4.0], total=8000))
    assert len(keyed.weighted_order(42, 0, 0, np.ones(7))) == 7


def test_weighted_order_is_fair_where_a_row_is_expected_less_than_once():
    weights = [0.1, 0.2, 0.7]
    drawn = [keyed.weighted_order(42, 0, epoch, weights, total=1)[0] for epoch in range(3000)]
    assert np.bincount(drawn, minlength=3) / 3000 == pytest.approx(weights, abs=0.03)


def test_weighted_order_is_shuffled():
    """Sorted rows would give the first batches one class only."""
    drawn = keyed.weighted_order(42, 0, 0, [1.0] * 500 + [5.0] * 100)
    first = (drawn[:300] >= 500).mean()
    assert first == pytest.approx((drawn >= 500).mean(), abs=0.1)
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 0.15


@pytest.mark.parametrize("weights", [[0.0, 0.0], [1.0, -1.0], [1.0, float("nan")], [float("inf"), 1.0]])
def test_impossible_weights_are_refused(weights):
    with pytest.raises(ValueError, match="row weights"):
        keyed.weighted_order(0, 0, 0, weights)
