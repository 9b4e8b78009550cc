"""Scores against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_score, recall_score

from node.learning.scores import score, softmax


def test_scores_are_those_of_scikit_learn() -> None:
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 4, 200)
    probabilities = softmax(generator.normal(size=(200, 5)).astype(np.float32))
    predicted = probabilities.argmax(axis=1)
    scores = score(probabilities, labels)
    every = {"labels": range(5), "average": "macro", "zero_division": 0}
    assert scores.accuracy == pytest.approx((predicted == labels).mean())
    assert scores.loss == pytest.approx(-np.log(probabilities[range(200), labels]).mean(), rel=1e-5)
    assert scores.precision == pytest.approx(precision_score(labels, predicted, **every))
    assert scores.recall == pytest.approx(recall_score(labels, predicted, **every))
    assert scores.f1 == pytest.approx(f1_score(labels, predicted, **every))


def test_softmax_bears_large_numbers() -> None:
    assert softmax(np.array([[1000.0, 0.0], [-1000.0, -1000.0]], np.float32)).tolist() == [[1, 0], [0.5, 0.5]]
