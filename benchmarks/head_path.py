"""The path of linear heads against scikit-learn's loop over the same strengths, on the same features and machine.

    python benchmarks/head_path.py                                        # small: 300 rows, 512 features, 10 classes
    python benchmarks/head_path.py --rows 1000 --dims 2048 --classes 102  # minutes, nearly all of it scikit-learn's
    python benchmarks/head_path.py --rows 5000 --dims 768 --classes 100 --alone

Features are Gaussian classes on a decaying spectrum (or ``--features FILE.npz`` with arrays ``features`` and
``labels``). The peer is the recipe of the CLIP repository, ``LogisticRegression(max_iter=1000)`` for every strength, on
standardised features. It stops at a gradient of 1e-4, which is early for weak strengths (objective ratios below 1 say
so): ``--peer-tolerance 1e-6`` makes it as exact as ours.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import torch

from headstart.stages.solver import Path, solve_path


def toys(rows: int, dims: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, rows)
    labels[:classes] = np.arange(classes)
    spectrum = np.arange(1, dims + 1) ** -0.5
    rotation = np.linalg.qr(rng.normal(size=(dims, dims)))[0]
    features = (rng.normal(size=(classes, dims))[labels] + 6 * rng.normal(size=(rows, dims))) * spectrum @ rotation
    return features.astype(np.float32), labels


def objective(path: Path, weight: np.ndarray, bias: np.ndarray, x: np.ndarray, y: np.ndarray, strength: float) -> float:
    """Of a head on standardised features (K, D), (K,)."""
    logits = torch.tensor(x @ weight.T + bias)
    loss = float(torch.nn.functional.cross_entropy(logits, torch.tensor(y)))
    return loss + strength / 2 * float((weight**2).sum()) * (2 if len(bias) == 2 else 1)


def peer(
    path: Path, x: np.ndarray, y: np.ndarray, val: np.ndarray, tolerance: float
) -> tuple[float, list[float], list[float]]:
    """Seconds of the loop; for every strength our objective over the peer's, and the share of equal predictions."""
    from sklearn.linear_model import LogisticRegression

    standard = ((x.astype(np.float64) - path.frame.shift.numpy()) / path.frame.scale.numpy()).astype(np.float32)
    scale, shift = path.frame.scale.numpy(), path.frame.shift.numpy()
    seconds, ratios, agree = 0.0, [], []
    for index, strength in enumerate(path.strengths):
        started = time.perf_counter()
        model = LogisticRegression(C=1 / (strength * len(y)), tol=tolerance, max_iter=1000).fit(standard, y)
        seconds += time.perf_counter() - started
        theirs, their_bias = model.coef_.astype(np.float64), model.intercept_.astype(np.float64)
        if len(theirs) == 1:
            theirs, their_bias = np.vstack([-theirs, theirs]) / 2, np.concatenate([-their_bias, their_bias]) / 2
        weight, bias = (part.double().numpy() for part in path.linear(index))
        ours, our_bias = weight * scale, bias + weight @ shift
        wide = standard.astype(np.float64)
        ratios.append(
            objective(path, ours, our_bias, wide, y, strength) / objective(path, theirs, their_bias, wide, y, strength)
        )
        judged = (val - shift) / scale
        agree.append(
            float(((judged @ ours.T + our_bias).argmax(1) == (judged @ theirs.T + their_bias).argmax(1)).mean())
        )
    return seconds, ratios, agree


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--dims", type=int, default=512)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--features", help="an .npz file with features (N, D) and labels (N,); a fifth validates")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=3, help="of our side; the best is reported")
    parser.add_argument("--peer-tolerance", type=float, default=1e-4, help="scikit-learn's own default is 1e-4")
    parser.add_argument("--alone", action="store_true", help="without scikit-learn")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    if chosen.features:
        with np.load(chosen.features) as stored:
            features, labels = stored["features"].astype(np.float32), stored["labels"]
        order = np.random.default_rng(0).permutation(len(labels))
        features, labels = features[order], labels[order]
        rows = int(0.8 * len(labels))
    else:
        rows = chosen.rows
        features, labels = toys(rows + max(200, rows // 5), chosen.dims, chosen.classes)
    classes = int(labels.max()) + 1
    train = torch.tensor(features[:rows], device=chosen.device)
    val = torch.tensor(features[rows:], device=chosen.device)
    seconds = []
    for _ in range(chosen.repeats):
        started = time.perf_counter()
        path = solve_path(train, labels[:rows], val, labels[rows:], classes)
        seconds.append(time.perf_counter() - started)
    result = {
        "rows": rows,
        "dims": features.shape[1],
        "classes": classes,
        "strengths": len(path.strengths),
        "device": chosen.device,
        "threads": chosen.threads,
        "seconds": round(min(seconds), 4),
        "iterations": sum(path.iterations),
        "chosen": path.strengths[path.chosen],
        "val_log_loss": path.log_losses[path.chosen],
        "val_accuracy": path.accuracies[path.chosen],
    }
    if not chosen.alone:
        loop, ratios, agree = peer(
            path, features[:rows], labels[:rows], features[rows:].astype(np.float64), chosen.peer_tolerance
        )
        result |= {
            "scikit_learn_seconds": round(loop, 3),
            "times_faster": round(loop / min(seconds), 1),
            "objective_ratio": [min(ratios), max(ratios)],
            "least_agreement": min(agree),
        }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
