"""Training by TFF's client work, called directly."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from node.contract import UsageError
from node.data.dataset import Dataset, Split
from node.learning.encoding import Weights, check, encode
from node.learning.runtime import build_client_work, tff
from node.learning.tff import Learner
from tests.learning.conftest import WORKLOAD, equal

# TensorFlow and Keras use what others have deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

HOW: dict[str, Any] = {"local_epochs": 1, "batch_size": 16, "learning_rate": 0.1, "seed": 1}


def stepped(model: Weights, update: Weights) -> Weights:
    return {name: model[name] - update[name] for name in model}


def test_training_improves_the_model(learner: Learner, model: Weights, digits: Split) -> None:
    before = learner.evaluate(model, digits.test)
    trained = learner.train(model, digits.train, **{**HOW, "local_epochs": 2})
    after = learner.evaluate(stepped(model, trained.update), digits.test)
    assert trained.examples == len(digits.train)
    assert not trained.diverged
    assert before.accuracy < 0.3
    assert after.accuracy > 0.85
    assert after.loss < trained.loss < before.loss
    assert 0.8 < after.f1 <= 1


def test_the_seed_decides_training(learner: Learner, model: Weights, shards: list[Dataset]) -> None:
    def trained(seed: int) -> Weights:
        return learner.train(model, shards[0], **{**HOW, "seed": seed}).update

    first = trained(1)
    assert not equal(first, trained(2))
    assert equal(first, trained(1))  # nothing of the training between is left over


def test_another_learner_gives_the_same_bits(learner: Learner, model: Weights, shards: list[Dataset]) -> None:
    other = Learner(WORKLOAD, (8, 8, 1), 10, None)
    assert encode(other.initial_weights(7)) == encode(model)
    assert encode(other.initial_weights(8)) != encode(model)
    assert equal(other.train(model, shards[1], **HOW).update, learner.train(model, shards[1], **HOW).update)


def test_the_loop_that_runs_gives_the_bits_of_the_one_that_tff_takes(
    learner: Learner, model: Weights, shards: list[Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_default(model_fn: Any, **kwargs: Any) -> Any:
        return build_client_work(
            model_fn, **{**kwargs, "loop_implementation": tff.learning.LoopImplementation.DATASET_REDUCE}
        )

    monkeypatch.setattr("node.learning.learner.build_client_work", with_default)
    other = Learner(WORKLOAD, (8, 8, 1), 10, None)
    how = {**HOW, "local_epochs": 2}
    assert equal(other.train(model, shards[1], **how).update, learner.train(model, shards[1], **how).update)


def test_loss_is_of_this_training_alone(learner: Learner, model: Weights, shards: list[Dataset]) -> None:
    first = learner.train(model, shards[0], **HOW).loss
    learner.train(model, shards[1], **{**HOW, "local_epochs": 3})
    assert learner.train(model, shards[0], **HOW).loss == first


def test_learning_rate_and_epochs_are_obeyed(learner: Learner, model: Weights, shards: list[Dataset]) -> None:
    def size(**changes: Any) -> float:
        update = learner.train(model, shards[0], **{**HOW, **changes}).update
        return float(sum(np.abs(array).sum() for array in update.values()))

    assert size(learning_rate=0.0) == 0
    assert 0 < size(learning_rate=0.001) < size(learning_rate=0.1) < size(local_epochs=3)


def test_no_epochs_give_a_zero_update_that_counts(
    learner: Learner, model: Weights, shards: list[Dataset]
) -> None:
    trained = learner.train(model, shards[0], **{**HOW, "local_epochs": 0})
    assert trained.examples == len(shards[0])
    assert not any(array.any() for array in trained.update.values())


def test_a_training_that_diverges_counts_nothing(
    learner: Learner, model: Weights, shards: list[Dataset]
) -> None:
    trained = learner.train(model, shards[0], **{**HOW, "learning_rate": 1e30})
    assert trained.diverged
    assert (trained.examples, trained.loss) == (0, 0.0)
    assert not any(array.any() for array in trained.update.values())
    assert learner.train(model, shards[0], **HOW).loss > 0  # and leaves no trace


def test_tracing_changes_nothing(learner: Learner, model: Weights, shards: list[Dataset]) -> None:
    before = learner.train(model, shards[2], **HOW).update
    learner.trace()
    assert equal(learner.train(model, shards[2], **HOW).update, before)


def test_weights_travel(learner: Learner, model: Weights, shards: list[Dataset]) -> None:
    update = learner.train(model, shards[0], **HOW).update
    assert equal(check(encode(update), model), update)
    assert equal(learner.train(check(encode(model), model), shards[0], **HOW).update, update)


def test_inference_takes_time(learner: Learner, model: Weights) -> None:
    assert learner.inference_ms(model, 32) > 0


@pytest.mark.parametrize(
    ("shape", "parameters"), [((28, 28, 1), 56_714), ((32, 32, 3), 122_570), ((8, 8, 1), 13_706)]
)
def test_sizes_of_our_models(shape: tuple[int, ...], parameters: int) -> None:
    weights = Learner(WORKLOAD, shape, 10, None).initial_weights(0)
    assert sum(array.size for array in weights.values()) == parameters


TASK = """
def model():
    from tensorflow import keras
    return {model}
"""


def own(tmp_path: Path, model: str) -> Learner:
    path = tmp_path / "task.py"
    path.write_text(TASK.format(model=model))
    workload = dataclasses.replace(WORKLOAD, model="file", optimizer="adam", learning_rate=0.01)
    return Learner(workload, (8, 8, 1), 10, str(path))


@pytest.mark.parametrize("last", ["softmax", None])
def test_the_users_own_model_trains(last: str | None, tmp_path: Path, digits: Split) -> None:
    layers = f"keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10, activation={last!r})"
    learner = own(tmp_path, f"keras.Sequential([{layers}])")
    model = learner.initial_weights(1)
    trained = learner.train(model, digits.train, **{**HOW, "learning_rate": 0.01})
    assert learner.evaluate(stepped(model, trained.update), digits.test).accuracy > 0.8


DROPPING = (
    "keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.Sequential("
    "[keras.layers.Dense(32), keras.layers.Dropout(0.5)]), keras.layers.Dense(10)])"
)


def test_the_seed_decides_what_dropout_drops(tmp_path: Path, shards: list[Dataset]) -> None:
    learner, other = own(tmp_path, DROPPING), own(tmp_path, DROPPING)
    model, one = learner.initial_weights(1), shards[0].take(np.array([0]))  # has no order

    def trained(by: Learner, seed: int) -> Weights:
        return by.train(model, one, **{**HOW, "seed": seed, "local_epochs": 2}).update

    first, second = trained(learner, 1), trained(learner, 2)
    assert not equal(first, second)
    assert equal(trained(other, 2), second)  # whatever was trained before
    assert equal(trained(learner, 1), first)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("3", "returned int"),
        ("keras.Sequential([keras.layers.Dense(10)])", "does not know its input"),
        ("keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)])", r"takes \(8,\)"),
        (
            "keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(3)])",
            "10 classes",
        ),
        (
            "keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), "
            "keras.layers.BatchNormalization(), keras.layers.Dense(10)])",
            "not trained",
        ),
        ("keras.no_such_thing", "task.py:4: AttributeError"),
    ],
)
def test_a_wrong_model_of_the_users_is_refused(model: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said):
        own(tmp_path, model)
