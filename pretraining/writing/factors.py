"""Where the embedding begins: factors of what stands beside what, and of what dictionaries say means the same.

Counting is much quicker than descent, and what it finds descent would need days for. Two sparse matrices have a column
for each token (V) of the vocabulary:

- **beside**: how much oftener two tokens stand within five places of each other than chance has it (positive pointwise
  mutual information; Levy & Goldberg 2014, "Neural word embedding as implicit matrix factorization");
- **entries**: a row for each entry of the dictionaries, in which the words of its meaning and of its gloss are positive
  and those of the opposite negative (Yih, Zweig & Platt 2012, "Polarity inducing latent semantic analysis"), so that
  *good* and *bad* end far from each other although they stand in the same sentences. Entries of two languages bring
  these together.

The right singular vectors of the two, one above the other, are the embedding (V, E).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy import sparse
from transformers import PreTrainedTokenizerFast

from pretraining.writing.dictionaries import Meaning

WINDOW = 5  # tokens on either side
BATCH = 60_000  # paragraphs that are counted at a time
RELATED, GLOSS, OPPOSITE = 0.5, 0.5, -1.0  # weights in an entry, beside 1 for the words of its meaning


def embedding(
    tokenizer: PreTrainedTokenizerFast,
    texts: Iterable[tuple[list[str], float]],
    meanings: list[Meaning],
    width: int,
    share: float = 0.08,
) -> np.ndarray:
    """Factors (V, ``width``), as good as zero for tokens that stand nowhere.

    ``texts`` are paragraphs and what they weigh; ``share`` is the largest singular value of the dictionaries' matrix,
    where that of the other is 1.
    """
    counts = sum(beside(tokenizer, lines, weight) for lines, weight in texts)
    found = informative(counts)
    told = entries(tokenizer, meanings)
    scale = share * _factors(found, 1)[0][0] / _factors(told, 1)[0][0]
    values, vectors = _factors(sparse.vstack([found, told * np.float32(scale)]).tocsr(), width)
    return vectors * np.sqrt(values)


def beside(tokenizer: PreTrainedTokenizerFast, lines: list[str], weight: float) -> sparse.csr_matrix:
    """How often each two tokens stand near each other (V, V); the nearer, the more it counts."""
    size = len(tokenizer)
    total = sparse.csr_matrix((size, size), dtype=np.float32)
    for start in range(0, len(lines), BATCH):
        found = tokenizer.backend_tokenizer.encode_batch(lines[start : start + BATCH], add_special_tokens=False)
        ids = np.concatenate([np.array(each.ids + [-1] * WINDOW, dtype=np.int64) for each in found])
        for distance in range(1, WINDOW + 1):
            first, second = ids[:-distance], ids[distance:]
            real = (first >= 0) & (second >= 0)
            keys, times = np.unique(first[real] * size + second[real], return_counts=True)
            values = (weight / distance * times).astype(np.float32)
            total = total + sparse.csr_matrix((values, (keys // size, keys % size)), shape=(size, size))
    return total + total.T


def informative(counts: sparse.csr_matrix, smooth: float = 0.75) -> sparse.csr_matrix:
    """Positive pointwise mutual information of counts (V, V); rare neighbours count less by ``smooth``."""
    cells = counts.tocoo()
    totals = np.asarray(counts.sum(axis=1)).ravel()
    chance = totals**smooth / (totals**smooth).sum()
    values = np.log(cells.data / (totals[cells.row] * chance[cells.col]))
    kept = values > 0
    where = (cells.row[kept], cells.col[kept])
    return sparse.csr_matrix((values[kept].astype(np.float32), where), shape=counts.shape)


def entries(tokenizer: PreTrainedTokenizerFast, meanings: list[Meaning]) -> sparse.csr_matrix:
    """A unit row for each meaning (M, V): rare tokens weigh more, as in TF-IDF; opposites are negative."""
    phrases, rows, weights = [], [], []
    for row, meaning in enumerate(meanings):
        for given, weight in ((meaning.words, 1.0), (meaning.related, RELATED), (meaning.opposites, OPPOSITE)):
            for words in given.values():
                phrases += words[:12]
                rows += [row] * len(words[:12])
                weights += [weight] * len(words[:12])
        phrases += meaning.glosses[:3]
        rows += [row] * len(meaning.glosses[:3])
        weights += [GLOSS] * len(meaning.glosses[:3])
    found = tokenizer.backend_tokenizer.encode_batch(phrases, add_special_tokens=False)
    lengths = np.array([len(each.ids) for each in found])
    values = np.repeat(np.array(weights) / np.sqrt(np.maximum(lengths, 1)), lengths).astype(np.float32)
    columns = np.concatenate([np.array(each.ids, dtype=np.int64) for each in found])
    shape = (len(meanings), len(tokenizer))
    cells = sparse.csr_matrix((values, (np.repeat(rows, lengths), columns)), shape=shape)
    rarity = np.log(len(meanings) / (1 + np.asarray((cells != 0).sum(axis=0)).ravel())).clip(0)
    cells = cells @ sparse.diags(rarity.astype(np.float32))
    norms = np.sqrt(np.asarray(cells.multiply(cells).sum(axis=1)).ravel())
    return sparse.diags((1 / np.where(norms > 0, norms, 1)).astype(np.float32)) @ cells


def _factors(matrix: sparse.csr_matrix, width: int, rounds: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """The largest singular values and their right vectors (V, ``width``) (Halko, Martinsson & Tropp 2011).

    scikit-learn's ``randomized_svd`` does the same; on 395,000 entries it ended for want of memory (23 GB).
    """
    start = np.random.default_rng(0).standard_normal((matrix.shape[1], width + 16)).astype(np.float32)
    basis = start
    for _ in range(rounds):
        basis, _ = np.linalg.qr(matrix.T @ (matrix @ basis))
    _, values, vectors = np.linalg.svd(matrix @ basis, full_matrices=False)
    return values[:width], (basis @ vectors.T)[:, :width]
