"""TFF's client work on one node: training on its own examples, and evaluation."""

from __future__ import annotations

import re
import statistics
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from node.contract import UsageError
from node.contract.plan import WorkloadPlan
from node.data.dataset import Dataset
from node.learning.encoding import Floats, Weights
from node.learning.models import cnn
from node.learning.runtime import build_client_work, tf, tff, use_one_thread
from node.learning.scores import Scores, score, softmax
from node.learning.task import load_task

EVALUATION_BATCH: Final = 256
WARM_UP_CALLS: Final = 10
TIMED_CALLS: Final = 100


@dataclass(frozen=True)
class Trained:
    """`update` is base minus trained, TFF's own sign; zero, of no examples, when the training diverged."""

    update: Weights
    examples: int
    loss: float  # mean over the examples as they were trained on
    diverged: bool = False


class Learner:
    """A model with TFF's client work around it, without TFF's execution context and its helper process."""

    def __init__(
        self, workload: WorkloadPlan, input_shape: tuple[int, ...], classes: int, task_file: str | None
    ) -> None:
        use_one_thread()
        self._input_shape = input_shape
        self._classes = classes
        self._task = load_task(Path(task_file)) if workload.model == "file" and task_file else None
        if workload.model == "file" and self._task is None:
            raise UsageError(
                "workload.model is `file`, but there is no task file", "name it in workload.file"
            )
        optimizers = {"sgd": tff.learning.optimizers.build_sgdm, "adam": tff.learning.optimizers.build_adam}
        self._optimizer = optimizers[workload.optimizer](workload.learning_rate)
        self._hyperparameters = self._optimizer.get_hparams(
            self._optimizer.initialize(tf.TensorSpec((), tf.float32))
        )
        tf.keras.utils.set_random_seed(0)
        # The model's variables live as long as the traced functions that use them.
        self._keras = _with_generators(self._build)
        self._generators = _generators(self._keras)
        self._model = self._variable_model(self._keras)
        self._names = _names(self._keras)
        self._train = build_client_work(
            lambda: self._model,
            weighting=tff.learning.ClientWeighting.NUM_EXAMPLES,
            # The default, a reduction inside the data set's own operation, optimises its graph anew in each
            # call, for a quarter of the time of 500 images. Both give the same bits.
            loop_implementation=tff.learning.LoopImplementation.DATASET_ITERATOR,
        )
        self._predict = tf.function(
            lambda features: self._keras(features, training=False),
            input_signature=[tf.TensorSpec((None, *input_shape), tf.float32)],
        )

    def initial_weights(self, seed: int) -> Weights:
        """A fresh model's weights, the same for the same seed."""
        tf.keras.utils.set_random_seed(seed % (1 << 32))
        fresh = self._build()
        return {
            name: np.array(value.numpy())
            for name, value in zip(self._names, fresh.trainable_variables, strict=True)
        }

    def train(
        self,
        weights: Weights,
        data: Dataset,
        *,
        local_epochs: int,
        batch_size: int,
        learning_rate: float,
        seed: int,
    ) -> Trained:
        """Train from `weights`; the seed decides order and dropout. No epochs: a zero update."""
        if local_epochs == 0:
            return Trained({name: np.zeros_like(array) for name, array in weights.items()}, len(data), 0.0)
        self._model.reset_metrics()
        hyperparameters = OrderedDict(
            (name, tf.constant(learning_rate if name == "learning_rate" else value, tf.float32))
            for name, value in self._hyperparameters.items()
        )
        base = tff.learning.models.ModelWeights([tf.constant(weights[name]) for name in self._names], [])
        for place, generator in enumerate(self._generators):
            generator.reset_from_seed(int(np.random.SeedSequence([seed, place]).generate_state(1)[0]))
        batches = _batches(data, local_epochs, batch_size, seed)
        result, metrics = self._train(self._optimizer, base, batches, hyperparameters)
        update = {name: array.numpy() for name, array in zip(self._names, result.update, strict=True)}
        if float(result.update_weight) == 0.0:
            return Trained(update, 0, 0.0, diverged=True)
        total, count = (float(value) for value in metrics["loss"])
        loss = total / count
        return Trained(update, len(data), loss)

    def trace(self, batch_size: int = 1) -> None:
        """Have TensorFlow build its graphs now, so that the first round does not pay for it."""
        empty = Dataset(
            np.zeros((batch_size, *self._input_shape), np.float32), np.zeros(batch_size, np.int64)
        )
        weights = dict(zip(self._names, (v.numpy() for v in self._keras.trainable_variables), strict=True))
        self.train(weights, empty, local_epochs=1, batch_size=batch_size, learning_rate=0.0, seed=0)

    def probabilities(self, weights: Weights, data: Dataset) -> Floats:
        """The model's class probabilities, a row for each example."""
        self._assign(weights)
        rows = [
            self._predict(tf.constant(data.features[start : start + EVALUATION_BATCH])).numpy()
            for start in range(0, len(data), EVALUATION_BATCH)
        ]
        outputs: Floats = np.concatenate(rows)
        return outputs if _ends_in_softmax(self._keras) else softmax(outputs)

    def evaluate(self, weights: Weights, data: Dataset) -> Scores:
        """How good the model is on data that it was not trained on."""
        return score(self.probabilities(weights, data), data.labels)

    def inference_ms(self, weights: Weights, batch_size: int) -> float:
        """Median time of one prediction, after some to warm up."""
        self._assign(weights)
        batch = tf.constant(np.zeros((batch_size, *self._input_shape), np.float32))
        times_ms = []
        for _ in range(WARM_UP_CALLS + TIMED_CALLS):
            begin_ns = time.perf_counter_ns()
            self._predict(batch).numpy()
            times_ms.append((time.perf_counter_ns() - begin_ns) / 1e6)
        return statistics.median(times_ms[WARM_UP_CALLS:])

    def _build(self) -> Any:
        """A new model with new variables."""
        if self._task is None:
            return cnn(tf.keras, self._input_shape, self._classes)
        model = self._task.call("model")
        _check_model(model, self._task.path, self._input_shape, self._classes)
        return model

    def _variable_model(self, keras_model: Any) -> Any:
        return tff.learning.models.from_keras_model(
            keras_model,
            loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=not _ends_in_softmax(keras_model)),
            input_spec=(
                tf.TensorSpec((None, *self._input_shape), tf.float32),
                tf.TensorSpec((None,), tf.int64),
            ),
        )

    def _assign(self, weights: Weights) -> None:
        for name, variable in zip(self._names, self._keras.trainable_variables, strict=True):
            variable.assign(weights[name])


def _batches(data: Dataset, epochs: int, batch_size: int, seed: int) -> Any:
    """Every epoch in an order of its own; batches do not reach across epochs."""
    generator = np.random.Generator(np.random.PCG64(seed))
    shuffled = [data.take(generator.permutation(len(data))) for _ in range(epochs)]
    batches, *later = (
        tf.data.Dataset.from_tensor_slices((epoch.features, epoch.labels)).batch(batch_size)
        for epoch in shuffled
    )
    for epoch in later:
        batches = batches.concatenate(epoch)
    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    options.threading.max_intra_op_parallelism = 1
    # There is nothing to tune; and where processors are busy, the tuner's thread can miss that all is over,
    # and a training that is done waits a quarter of a second for it to wake up.
    options.autotune.enabled = False
    return batches.with_options(options)


def _names(keras_model: Any) -> list[str]:
    """Names by place, the same in every process: Keras' own count up within one."""
    names = []
    for place, variable in enumerate(keras_model.trainable_variables):
        layer, _, kind = variable.name.partition(":")[0].rpartition("/")
        names.append(f"{place:02d}.{re.sub(r'_[0-9]+$', '', layer)}.{kind}")
    return names


def _with_generators(build: Callable[[], Any]) -> Any:
    """A model whose layers, such as dropout, draw from generators that can be seeded for each training."""
    tf.keras.backend.experimental.enable_tf_random_generator()
    try:
        return build()
    finally:
        tf.keras.backend.experimental.disable_tf_random_generator()


def _generators(keras_model: Any) -> list[Any]:
    """Those of its layers, inner models' too, in an order of the model's own."""
    makers = [getattr(layer, "_random_generator", None) for layer in keras_model.submodules]
    found = [getattr(maker, "_generator", None) for maker in makers]
    return [generator for generator in found if generator is not None]


def _ends_in_softmax(keras_model: Any) -> bool:
    last = keras_model.layers[-1]
    return isinstance(last, tf.keras.layers.Softmax) or (
        getattr(last, "activation", None) is tf.keras.activations.softmax
    )


def _check_model(model: Any, path: Path, input_shape: tuple[int, ...], classes: int) -> None:
    """What a user's model must be, each failing with its cure."""

    def refuse(complaint: str, hint: str) -> UsageError:
        return UsageError(f"{path}: model() {complaint}", hint)

    if not isinstance(model, tf.keras.Model):
        raise refuse(
            f"returned {type(model).__name__}, not a Keras model", "return a tf.keras.Sequential or Model"
        )
    if getattr(model, "_is_compiled", False):
        raise refuse(
            "returned a compiled model", "leave compile() out: loss and optimizer are the scenario's"
        )
    if not model.built:
        raise refuse("returned a model that does not know its input", "begin it with tf.keras.Input(shape)")
    if tuple(model.input_shape[1:]) != input_shape:
        raise refuse(f"takes {model.input_shape[1:]}, but an example is {input_shape}", "make the two agree")
    if model.output_shape[1:] != (classes,):
        raise refuse(
            f"gives {model.output_shape[1:]}, but there are {classes} classes", "end in Dense(classes)"
        )
    if model.non_trainable_variables:
        name = model.non_trainable_variables[0].name
        raise refuse(
            f"has a variable that is not trained, {name}, and federated averaging would leave it as it is",
            "use GroupNormalization or LayerNormalization for BatchNormalization, and freeze no layer",
        )
    if any(variable.dtype != tf.float32 for variable in model.trainable_variables):
        raise refuse("has variables that are not float32", "use no mixed precision")
