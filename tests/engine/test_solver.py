"""The path of linear heads against scikit-learn, by its definition, and on inputs that break careless solvers.

Shapes: N rows, D features, K classes.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headstart.core.errors import TrainingError
from headstart.models.threads import set_to
from headstart.stages import descent, logistic, solver
from headstart.stages.solver import Path, solve_path

STRENGTHS = (1.0, 1e-1, 1e-2, 1e-3, 1e-4)


@pytest.fixture(autouse=True)
def _same_chance() -> None:
    torch.manual_seed(0)


def clusters(
    n: int, dims: int, classes: int, *, apart: float = 1.0, seed: int = 0, unequal: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gaussian classes on correlated features of very different sizes, as a backbone gives them."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    if unequal:
        labels = np.minimum(labels, rng.integers(0, classes, n))
    labels[:classes] = np.arange(classes)
    mixing = np.random.default_rng(99).normal(size=(dims, dims)) * (1 / np.sqrt(np.arange(1, dims + 1)))[:, None]
    centres = np.random.default_rng(98).normal(size=(classes, dims)) * apart
    size = np.random.default_rng(97).uniform(0.2, 5, dims)
    features = (centres[labels] + rng.normal(size=(n, dims))) @ mixing * size + 3 * size
    return torch.tensor(features, dtype=torch.float32), torch.tensor(labels)


def objective(
    path: Path, weight: torch.Tensor, bias: torch.Tensor, features: torch.Tensor, labels: torch.Tensor, strength: float
) -> float:
    """The definition, in float64 and on the features as given: the penalty is on weights of standardised features."""
    loss = torch.nn.functional.cross_entropy(features.double() @ weight.double().T + bias.double(), labels)
    penalty = (weight.double() * path.frame.scale).square().sum() * (2 if len(bias) == 2 else 1)
    return float(loss + strength / 2 * penalty)


def by_scikit_learn(
    path: Path, features: torch.Tensor, labels: torch.Tensor, strength: float, sample_weight: np.ndarray | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias for features as given."""
    from sklearn.linear_model import LogisticRegression

    standard = ((features.double() - path.frame.shift) / path.frame.scale).numpy()
    total = len(labels) if sample_weight is None else sample_weight.sum()
    model = LogisticRegression(C=1 / (strength * total), tol=1e-7, max_iter=5000)
    model.fit(standard, labels.numpy(), sample_weight)
    weight, bias = torch.tensor(model.coef_), torch.tensor(model.intercept_)
    if len(model.classes_) == 2:
        weight, bias = torch.cat([-weight / 2, weight / 2]), torch.cat([-bias / 2, bias / 2])
    weight = weight / path.frame.scale
    return weight, bias - weight @ path.frame.shift


@pytest.mark.parametrize(
    ("n", "dims", "classes", "apart"),
    [(300, 40, 5, 0.5), (60, 150, 3, 0.8), (244, 300, 2, 0.3), (400, 30, 2, 0.2), (250, 200, 25, 1.0)],
)
def test_every_strength_is_the_optimum_that_scikit_learn_finds(n: int, dims: int, classes: int, apart: float) -> None:
    features, labels = clusters(n, dims, classes, apart=apart)
    fresh, fresh_labels = clusters(1000, dims, classes, apart=apart, seed=1)
    path = solve_path(features, labels, fresh, fresh_labels, classes, strengths=STRENGTHS)
    for index, strength in enumerate(path.strengths):
        weight, bias = path.linear(index)
        other_weight, other_bias = by_scikit_learn(path, features, labels, strength)
        ours = objective(path, weight, bias, features, labels, strength)
        theirs = objective(path, other_weight, other_bias, features, labels, strength)
        assert ours <= theirs * (1 + 1e-3)
        assert ours >= theirs * (1 - 1e-3)
        assert path.objectives[index] == pytest.approx(ours, rel=1e-3)
        agree = (fresh @ weight.T + bias).argmax(1) == (fresh.double() @ other_weight.T + other_bias).argmax(1)
        assert agree.double().mean() >= 0.995


def test_row_weights_are_those_of_scikit_learn() -> None:
    features, labels = clusters(200, 30, 4, apart=0.5, unequal=True)
    counts = torch.bincount(labels)
    weights = (len(labels) / (4 * counts))[labels]
    path = solve_path(features, labels, features, labels, 4, strengths=(0.03,), weights=weights)
    ours = torch.cat([path.weight.double() * path.frame.scale, path.bias[:, None]], 1)
    weight, bias = by_scikit_learn(path, features, labels, 0.03, weights.double().numpy())
    theirs = torch.cat([weight * path.frame.scale, (bias - bias.mean())[:, None]], 1)
    assert torch.allclose(ours, theirs, atol=0.02 * float(theirs.abs().max()))
    plain = solve_path(features, labels, features, labels, 4, strengths=(0.03,))
    assert not torch.allclose(path.weight, plain.weight, rtol=0.05)  # the weights did something


def test_whole_weights_are_repeated_rows() -> None:
    features, labels = clusters(90, 20, 3)
    weights = torch.arange(90) % 3 + 1
    weighted = solve_path(features, labels, features, labels, 3, strengths=(0.1, 0.01), weights=weights, tolerance=1e-6)
    index = torch.repeat_interleave(torch.arange(90), weights)
    # Standardisation differs (it does not weight rows), so the repeated rows are solved in the frame of the plain ones.
    frame = weighted.frame
    problem = logistic.Weighted(
        frame.rotate(features[index]), frame.curvature, labels[index], torch.ones(1, len(index)), 3
    )
    solved = list(descent.follow(problem, (0.1, 0.01), 1e-6, 500))
    assert weighted.objectives == pytest.approx([float(value) for _, value, _, _ in solved], rel=2e-4)
    assert torch.allclose(solved[-1][0][0, :, :-1], weighted.coefs[-1], atol=0.02)


def test_the_gradient_is_the_derivative_of_the_objective() -> None:
    features, labels = clusters(50, 12, 4)
    frame, scores = logistic.frame_of(features)
    problem = logistic.Weighted(scores, frame.curvature, labels, torch.rand(1, 50) + 0.5, 4)
    point = torch.randn(1, 4, problem.scores.shape[1], requires_grad=True)
    logits = problem.scores @ point[0].T
    each = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    (each * problem.mass[0, 0]).sum().backward()
    residual, loss = problem.residuals(problem.margins(point.detach()))
    assert torch.allclose(problem.gradient(residual), point.grad, atol=1e-5)
    assert float(loss) == pytest.approx((each.detach() * problem.mass[0, 0]).sum().item(), rel=1e-5)


def test_residuals_stay_exact_where_the_label_is_almost_certain() -> None:
    problem = logistic.Weighted(torch.zeros(2, 0), torch.zeros(0), torch.tensor([0, 1]), torch.ones(1, 2), 2)
    margins = torch.tensor([[[0.0, -25.0], [-30.0, 0.0]]])
    residual, loss = problem.residuals(margins)
    certain = np.exp(np.array([-30.0, -25.0]))
    assert np.allclose(residual[0].numpy(), [[-certain[0], certain[1]], [certain[0], -certain[1]]], rtol=1e-5, atol=0)
    assert float(loss) == pytest.approx(certain.mean(), rel=1e-5)


def test_the_rotation_is_orthonormal_and_spans_the_rows() -> None:
    for shape in ((30, 100), (100, 30), (80, 90)):
        features = torch.randn(*shape) @ torch.diag(torch.linspace(0.1, 9, shape[1])) + 5
        frame, scores = logistic.frame_of(features)
        assert frame.basis is not None
        rank = frame.basis.shape[1]
        assert 0 <= rank - min(shape[0] - 1, shape[1]) <= 1  # rounding may leave one direction of no variance
        assert torch.allclose(frame.basis.T @ frame.basis, torch.eye(rank), atol=1e-4)
        standard = (features.double() - frame.shift) / frame.scale
        assert torch.allclose(frame.rotate(features) @ frame.basis.T, standard.float(), atol=1e-3)
        assert torch.allclose(frame.rotate(features), scores, atol=1e-3)


def test_without_rotation_the_optimum_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = clusters(120, 40, 4)
    rotated = solve_path(features, labels, features, labels, 4, strengths=(0.1, 0.01))
    monkeypatch.setattr(logistic, "LARGEST_ROTATION", 10)
    plain = solve_path(features, labels, features, labels, 4, strengths=(0.1, 0.01))
    assert plain.frame.basis is None
    assert plain.objectives == pytest.approx(rotated.objectives, rel=5e-4)
    assert plain.weight.shape == rotated.weight.shape


def test_the_strength_is_chosen_by_log_loss_or_by_accuracy() -> None:
    features, labels = clusters(60, 80, 3, apart=0.25)
    val, val_labels = clusters(300, 80, 3, apart=0.25, seed=1)
    by_loss = solve_path(features, labels, val, val_labels, 3)
    by_hits = solve_path(features, labels, val, val_labels, 3, metric="accuracy")
    assert by_loss.log_losses == by_hits.log_losses
    assert by_loss.chosen == int(np.argmin(by_loss.log_losses))
    best = [i for i, hit in enumerate(by_hits.accuracies) if hit == max(by_hits.accuracies)]
    assert by_hits.chosen in best
    assert by_hits.log_losses[by_hits.chosen] == min(by_hits.log_losses[i] for i in best)
    assert by_loss.val_scores == by_loss.log_losses
    assert by_hits.val_scores == by_hits.accuracies
    assert 0 < by_loss.chosen < len(by_loss.strengths) - 1
    logits = val @ by_loss.weight.T + by_loss.bias
    assert torch.allclose(by_loss.held_out_logits.softmax(1), logits.softmax(1), atol=1e-4)
    loss = float(torch.nn.functional.cross_entropy(logits, val_labels))
    assert by_loss.log_losses[by_loss.chosen] == pytest.approx(loss, rel=1e-3)


def test_cross_validation_is_the_separate_fits_of_its_folds() -> None:
    features, labels = clusters(60, 15, 3, apart=0.4)
    fold = torch.arange(60) % 4
    path = solve_path(features, labels, None, None, 3, strengths=(0.3, 0.03), folds=fold)
    assert path.held_out == "4 folds"
    for number in range(4):
        seen, unseen = fold != number, fold == number
        problem = logistic.Weighted(
            path.frame.rotate(features[seen]), path.frame.curvature, labels[seen], torch.ones(1, int(seen.sum())), 3
        )
        solutions = [solution[0] for solution, *_ in descent.follow(problem, (0.3, 0.03), 1e-6, 500)]
        alone = solutions[path.chosen]
        logits = path.frame.rotate(features[unseen]) @ alone[:, :-1].T + alone[:, -1]
        assert torch.allclose(path.held_out_logits[unseen].softmax(1), logits.softmax(1), atol=0.01)
    everything = solve_path(features, labels, features, labels, 3, strengths=(0.3, 0.03))
    assert path.objectives == pytest.approx(everything.objectives, rel=5e-4)


def test_cross_validation_does_not_see_the_row_it_judges() -> None:
    features = torch.randn(80, 200, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(80) % 2  # nothing to learn, but every row can be learned by heart
    path = solve_path(features, labels, None, None, 2)
    assert max(path.accuracies) < 0.7
    by_heart = solve_path(features, labels, features, labels, 2)
    assert max(by_heart.accuracies) == 1


def test_versions_of_one_row_are_held_out_together() -> None:
    features = torch.randn(40, 100, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(40) % 2
    views = torch.cat([features, features + 0.01])
    assert max(solve_path(views, labels, None, None, 2, views=2).accuracies) < 0.75
    leaked = solve_path(views, torch.cat([labels, labels]), None, None, 2, folds=torch.arange(80) // 40)
    assert max(leaked.accuracies) == 1  # what a solver that forgets the views would report


def test_stacked_views_are_rows_with_the_same_labels_and_weights() -> None:
    features, labels = clusters(40, 10, 3)
    other = features + 0.1 * torch.randn(40, 10, generator=torch.Generator().manual_seed(1))
    weights = torch.linspace(0.5, 2, 40)
    stacked = torch.cat([features, other])
    once = solve_path(stacked, labels, features, labels, 3, views=2, weights=weights)
    twice = solve_path(stacked, labels.repeat(2), features, labels, 3, views=2, weights=weights.repeat(2))
    plain = solve_path(stacked, labels.repeat(2), features, labels, 3, weights=weights.repeat(2))
    for path in (twice, plain):
        assert torch.equal(once.weight, path.weight)
        assert torch.equal(once.bias, path.bias)


def test_a_loss_that_falls_again_behind_a_crest_is_found() -> None:
    """Loud directions of noise come first; weak strengths reach the quiet one that tells the classes apart."""
    rng = np.random.default_rng(0)
    labels = np.arange(500) % 2
    loud = np.repeat(rng.normal(size=(500, 20)), 4, axis=1) + 0.1 * rng.normal(size=(500, 80))
    base = rng.normal(size=(500, 1))
    other = base + 0.05 * (2 * labels[:, None] - 1 + 0.3 * rng.normal(size=(500, 1)))  # the difference tells all
    features = np.concatenate([loud, base, other], axis=1).astype(np.float32)
    path = solve_path(features[:200], labels[:200], features[200:], labels[200:], 2)
    losses = np.array(path.log_losses)
    crest = int(losses[: path.chosen].argmax())
    assert 3 < crest < path.chosen
    assert losses[crest] > 1.1 * losses[0]
    assert losses[path.chosen] < 0.5 * losses[0]


@pytest.mark.parametrize("way", ["on a copy in its own order", "as it lies", "without oneDNN"])
@pytest.mark.parametrize("rows", [1, 7, 40])
def test_narrow_products_are_products(rows: int, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if way == "as it lies":
        monkeypatch.setattr(logistic, "LARGEST_COPY", 10)
    elif way == "without oneDNN":
        monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    few, matrix = torch.randn(rows, 90), torch.randn(300, 90)
    exact = few.double() @ matrix.double().T
    assert torch.allclose(logistic.Narrow(matrix.T, 7)(few).double(), exact, atol=1e-4)
    few, exact = torch.randn(rows, 300), matrix.double()
    assert torch.allclose(logistic.Narrow(matrix, 7)(few).double(), few.double() @ exact, atol=2e-4)


def by_two_loops(
    steps: list[torch.Tensor], turns: list[torch.Tensor], gradient: torch.Tensor, diagonal: torch.Tensor
) -> torch.Tensor:
    """Algorithm 7.4 of Nocedal & Wright, for one problem."""
    shares, rest = [], gradient.clone()
    for step, turn in zip(reversed(steps), reversed(turns), strict=True):
        shares.append(step @ rest / (step @ turn))
        rest = rest - shares[-1] * turn
    out = rest / diagonal
    for step, turn, share in zip(steps, turns, reversed(shares), strict=True):
        out = out + (share - turn @ out / (step @ turn)) * step
    return out


def test_what_steps_tell_of_the_hessian_is_that_of_two_loops() -> None:
    generator = torch.Generator().manual_seed(0)
    hessians = [each @ each.T + torch.eye(12) for each in torch.randn(2, 12, 12, generator=generator)]
    gradient, bowl = torch.randn(2, 3, 4, generator=generator), torch.rand(2, 3, 4, generator=generator) + 0.5
    memory = descent._Memory(gradient)
    assert torch.equal(memory.newton(gradient, bowl), gradient / bowl)
    steps: list[list[torch.Tensor]] = [[], []]
    for count in range(descent.REMEMBERED + 3):
        step = torch.randn(2, 12, generator=generator)
        if count == 4:
            step[1] = 0  # this problem is solved, the other is not
        turn = torch.stack([hessian @ each for hessian, each in zip(hessians, step, strict=True)])
        memory.add(step.view(2, 3, 4), turn.view(2, 3, 4))
        found = memory.newton(gradient, bowl)
        for which, hessian in enumerate(hessians):
            steps[which] = [*steps[which], step[which]][-descent.REMEMBERED :]
            real = [each for each in steps[which] if each.any()]
            turns = [hessian @ each for each in real]
            expected = by_two_loops(real, turns, gradient[which].flatten(), bowl[which].flatten())
            assert torch.allclose(found[which].flatten(), expected, rtol=1e-3, atol=1e-4)


def test_a_path_takes_fewer_iterations_than_its_strengths_one_by_one() -> None:
    """65 at its weak end; without the secants 206, without what steps tell 304, or 129 where only the first tells."""
    features, labels = clusters(400, 60, 5, apart=0.3)
    path = solve_path(features, labels, features, labels, 5)
    alone = [solve_path(features, labels, features, labels, 5, strengths=(each,)) for each in path.strengths]
    assert sum(path.iterations[10:]) < 95
    for index, one in enumerate(alone):
        assert path.objectives[index] == pytest.approx(one.objectives[0], rel=2e-3)


def test_equal_inputs_give_equal_bits() -> None:
    features, labels = clusters(100, 60, 5)
    first = solve_path(features, labels, None, None, 5)
    second = solve_path(features.clone(), labels.numpy(), None, None, 5)
    assert torch.equal(first.weight, second.weight)
    assert torch.equal(first.bias, second.bias)
    assert first.log_losses == second.log_losses


def test_convergence_is_reported() -> None:
    features, labels = clusters(100, 60, 5)
    path = solve_path(features, labels, features, labels, 5)
    assert max(path.gaps) <= 1e-4
    assert all(strong > weak for strong, weak in zip(path.strengths, path.strengths[1:], strict=False))
    starved = solve_path(features, labels, features, labels, 5, max_iterations=1)
    assert max(starved.gaps) > 1e-2
    assert set(path.to_json()) >= {"strengths", "scores", "chosen", "metric", "gaps"}


def test_no_class_in_sight_no_confidence() -> None:
    """The strongest penalty gives the class frequencies (the bias is not penalised)."""
    features, labels = clusters(100, 10, 3, unequal=True)
    path = solve_path(features, labels, features, labels, 3, strengths=(1e6,))
    probabilities = (features @ path.weight.T + path.bias).softmax(1)
    assert torch.allclose(probabilities, (torch.bincount(labels) / 100).expand(100, 3), atol=1e-3)


@pytest.mark.parametrize("kind", ["constant", "some constant", "duplicates", "huge", "tiny", "one feature", "half"])
def test_degenerate_features_are_solved(kind: str) -> None:
    features, labels = clusters(60, 20, 3, apart=2.0)
    if kind == "constant":
        features = torch.full((60, 20), 0.1)
    elif kind == "some constant":
        features[:, ::2] = 1 / 3
    elif kind == "duplicates":
        features, labels = features[:12].repeat(5, 1), labels[:12].repeat(5)
    elif kind == "huge":
        features = features * 1e15
    elif kind == "tiny":
        features = features * 1e-15
    elif kind == "one feature":
        features = features[:, :1]
    else:
        features = features.half()
    path = solve_path(features, labels, features, labels, 3)
    assert torch.isfinite(path.weight).all()
    assert torch.isfinite(path.bias).all()
    if kind == "constant":
        assert path.accuracies[path.chosen] == pytest.approx(float(torch.bincount(labels).max()) / 60)
    elif kind != "one feature":
        predicted = (features.float() @ path.weight.T + path.bias).argmax(1)
        assert (predicted == labels).float().mean() == 1


def test_a_feature_that_hardly_varies_is_not_blown_up() -> None:
    features, labels = clusters(100, 20, 3)
    features[:, 5] = 0
    features[7, 5] = 1e-4  # one row of the training set; a plain standardisation would make it ten
    path = solve_path(features, labels, features, labels, 3)
    other = features.clone()
    other[3, 5] = 1e-2
    moved = (other @ path.weight.T + path.bias - features @ path.weight.T - path.bias).abs()
    assert float(moved.max()) < 1


def test_one_row_a_class() -> None:
    features, labels = torch.eye(6), torch.arange(6)
    path = solve_path(features, labels, features, labels, 6)
    assert path.accuracies[path.chosen] == 1
    assert torch.isfinite(solve_path(features, labels, None, None, 6, folds=3).weight).all()


def test_a_class_without_rows_is_possible_and_never_predicted_first() -> None:
    features, labels = clusters(60, 20, 3)
    path = solve_path(features, labels * 2, features, labels * 2, 5)  # classes 1 and 3 have no rows
    predicted = (features @ path.weight.T + path.bias).argmax(1)
    assert set(predicted.tolist()) <= {0, 2, 4}
    assert torch.isfinite(path.bias).all()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"features": torch.full((10, 4), float("nan"))}, "not finite"),
        ({"features": torch.randn(10)}, "must be"),
        ({"features": torch.randn(9, 4)}, "do not go with"),
        ({"labels": torch.full((10,), 2)}, "two classes"),
        ({"labels": torch.arange(10)}, "labels must be 0 to 2"),
        ({"labels": torch.arange(10) % 3 - 1}, "found -1"),
        ({"val_features": torch.randn(10, 5)}, "validation"),
        ({"val_labels": torch.arange(9) % 3}, "validation"),
        ({"weights": torch.zeros(10)}, "weights"),
        ({"weights": -torch.ones(10)}, "weights"),
        ({"weights": torch.ones(4)}, "weights"),
        ({"strengths": (0.0,)}, "positive"),
        ({"strengths": ()}, "positive"),
        ({"metric": "f1"}, "log_loss or accuracy"),
        ({"val_features": None, "folds": 1}, "two folds"),
        ({"val_features": None, "folds": torch.zeros(10)}, "fold"),
    ],
)
def test_what_cannot_be_solved_is_said(change: dict[str, object], says: str) -> None:
    given: dict[str, object] = {
        "features": torch.randn(10, 4),
        "labels": torch.arange(10) % 3,
        "val_features": torch.randn(10, 4),
        "val_labels": torch.arange(10) % 3,
        "num_classes": 3,
    }
    with pytest.raises(TrainingError, match=says):
        solve_path(**(given | change))  # type: ignore[arg-type]


def test_all_mistakes_are_reported_at_once() -> None:
    features = torch.randn(10, 4)
    features[[2, 5], 1] = float("inf")
    with pytest.raises(TrainingError) as caught:
        solve_path(features, torch.full((10,), 7), features, torch.zeros(10), 3)
    assert len(caught.value.problems) == 3
    assert "[2, 5]" in str(caught.value)


def test_a_solver_that_stops_early_is_caught_by_the_comparison() -> None:
    """The planted fault: one iteration a strength is not the optimum, and the measure of the parity test sees it."""
    features, labels = clusters(200, 40, 5, apart=0.5)
    path = solve_path(features, labels, features, labels, 5, strengths=(1e-3,), max_iterations=1)
    weight, bias = by_scikit_learn(path, features, labels, 1e-3)
    theirs = objective(path, weight, bias, features, labels, 1e-3)
    assert objective(path, path.weight, path.bias, features, labels, 1e-3) > theirs * 1.01


@pytest.mark.parametrize(("small", "threads"), [(10**6, 1), (100, 2)])
def test_a_small_problem_takes_one_thread(small: int, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    margins, eigh = logistic.Weighted.margins, torch.linalg.eigh
    monkeypatch.setattr(solver, "SMALL", small)
    monkeypatch.setattr(logistic, "ALONE", small // 10)
    monkeypatch.setattr(torch.linalg, "eigh", lambda *given: seen.append(torch.get_num_threads()) or eigh(*given))
    monkeypatch.setattr(
        logistic.Weighted, "margins", lambda *given: seen.append(torch.get_num_threads()) or margins(*given)
    )
    features, labels = clusters(60, 12, 3)
    with set_to(2):
        solve_path(features, labels, features, labels, 3)
        assert torch.get_num_threads() == 2
    assert {*seen} == {threads}
