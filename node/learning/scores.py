"""How good predictions are; pure numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from node.learning.encoding import Floats


@dataclass(frozen=True)
class Scores:
    """Over a held-out set; precision, recall and f1 are means over all classes (macro)."""

    accuracy: float
    loss: float
    precision: float
    recall: float
    f1: float


def score(probabilities: Floats, labels: npt.NDArray[np.int64]) -> Scores:
    """Scores of one row of class probabilities for each label; a class never predicted has precision 0."""
    classes = probabilities.shape[1]
    predicted = probabilities.argmax(axis=1)
    counted = np.bincount(labels * classes + predicted, minlength=classes * classes)
    confusion: npt.NDArray[np.float64] = counted.reshape(classes, classes).astype(np.float64)
    hits: npt.NDArray[np.float64] = confusion.diagonal()
    precision = _ratio(hits, confusion.sum(axis=0))
    recall = _ratio(hits, confusion.sum(axis=1))
    chosen = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return Scores(
        accuracy=float(hits.sum() / len(labels)),
        loss=float(-np.log(np.clip(chosen, 1e-7, 1.0)).mean()),
        precision=float(precision.mean()),
        recall=float(recall.mean()),
        f1=float(_ratio(2 * precision * recall, precision + recall).mean()),
    )


def softmax(logits: Floats) -> Floats:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _ratio(part: npt.NDArray[np.float64], whole: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
