"""What a model answered about rows without labels, row by row.

Shapes: N rows, B rows of a part, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.core import notebook
from headstart.core.errors import ConfigError
from headstart.core.plural import plural

if TYPE_CHECKING:
    import pandas as pd


SHOWN = 60  # characters of a text, in one line
NO_NUMBER = "the model's answer is not a number"


@dataclass(frozen=True)
class Prediction:
    """The answer for one row: labels with probabilities, most likely first.

    ``problem`` says why there is none, or, beside scores, why the model would rather not say ("don't know"). ``texts``
    is the row itself where it is a text, or a pair of texts, that came without a file of its own.
    """

    name: str
    scores: tuple[tuple[str, float], ...] = ()
    problem: str = ""
    texts: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """One line for people: the beginning of the text, else the name."""
        whole = " ".join(" | ".join(self.texts).split())
        return (whole if len(whole) <= SHOWN else f"{whole[: SHOWN - 1]}…") or self.name

    @property
    def said(self) -> dict[str, str]:
        """The texts by what tables call them: ``text``, and of a pair ``text_pair``."""
        return dict(zip(("text", "text_pair"), self.texts, strict=False))

    @property
    def label(self) -> str:
        """The most likely label, or nothing where the row could not be read."""
        return self.scores[0][0] if self.scores else ""

    @property
    def labels(self) -> list[str]:
        """All labels shown, most likely first."""
        return [label for label, _ in self.scores]

    @property
    def score(self) -> float:
        return self.scores[0][1] if self.scores else float("nan")

    def as_pipeline(self) -> list[dict[str, Any]]:
        """The shape of transformers' pipelines: ``[{"label": "ant", "score": 0.98}, …]``."""
        return [{"label": label, "score": score} for label, score in self.scores]


class Predictions(Sequence[Prediction]):
    """Predictions in the order of the rows; shows itself as a table in a notebook.

    ``several`` says that a row may have several labels: all its ``scores`` are given then, and none may be.
    """

    def __init__(self, items: Sequence[Prediction], *, several: bool = False) -> None:
        self._items = tuple(items)
        self.several = several

    @classmethod
    def gather(
        cls,
        names: Sequence[str],
        classes: Sequence[str],
        parts: Iterable[tuple[np.ndarray, np.ndarray, Mapping[int, str]]],
        *,
        top_k: int | None = None,
        threshold: float = 0.0,
        given_from: float | None = None,
        texts: Sequence[tuple[str, ...]] = (),
    ) -> Predictions:
        """From parts of (row indices (B,), probabilities (B, K), problems by row) to N predictions.

        Args:
            top_k: labels a row, all by default.
            threshold: a most likely label below this probability is marked "don't know".
            given_from: where a row may have several labels, the probability from which each is given; ``top_k`` asks
                for so many instead.
            texts: of N rows, or nothing.
        """
        if top_k is not None and (type(top_k) is not int or top_k < 1):
            raise ConfigError(f"top_k is {top_k!r}", where="top_k", remedy="a whole number from 1 on")
        known = texts or [()] * len(names)
        found = [Prediction(name, texts=said) for name, said in zip(names, known, strict=True)]
        for indices, probabilities, problems in parts:
            for row, shares in zip(indices, probabilities, strict=True):
                if not np.isfinite(shares).all():
                    found[row] = replace(found[row], problem=NO_NUMBER)
                    continue
                order = np.argsort(-shares, kind="stable")[:top_k]
                if given_from is not None and top_k is None:
                    order = order[shares[order] >= given_from]
                scores = tuple((classes[i], float(shares[i])) for i in order)
                unsure = f"don't know: {shares.max():.3f} is below {threshold:.3f}"
                problem = unsure if shares.max() < threshold else ""
                found[row] = replace(found[row], scores=scores, problem=problem)
            for row, problem in problems.items():
                found[row] = replace(found[row], problem=problem)
        return cls(found, several=given_from is not None)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: Any) -> Any:
        return self._items[index]

    def frame(self) -> pd.DataFrame:
        """A DataFrame: name, label, score, problem, texts, and a column of probabilities for every label shown.

        Where a row may have several labels, ``labels`` lists those that are given in place of label and score.
        """
        import pandas as pd

        rows = []
        for item in self:
            told = {"labels": item.labels} if self.several else {"label": item.label, "score": item.score}
            rows.append({"name": item.name, **item.said, **told, "problem": item.problem, **dict(item.scores)})
        return pd.DataFrame(rows)

    def _repr_html_(self) -> str:
        rows = ((item.shown, self._told(item) or item.problem, f"{item.score:.3f}") for item in self._items[:50])
        more = f"{len(self)} rows, the first 50 shown" if len(self) > 50 else ""
        return notebook.table(("name", "label", "score"), rows, more)

    def _told(self, item: Prediction) -> str:
        return ", ".join(item.labels) if self.several else item.label

    def __repr__(self) -> str:
        return f"Predictions({plural(len(self), 'row')})"
