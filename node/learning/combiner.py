"""TFF's aggregator and finalizer on the aggregating node, compiled to plain graphs by TFF's own compiler.

TFF's execution contexts start a helper process, `worker_binary`, that outlives its parent. TFF can instead
compile one round to a MapReduceForm, the form it has for other runtimes: TensorFlow graphs that are called
here, client by client in the given order.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

import numpy as np
import safetensors.numpy

from node.contract import ShoalError, UsageError
from node.learning.encoding import Weights
from node.learning.runtime import binding_names, tf, tff, use_one_thread

TEXT: Final = ".text"
Strategy = Literal["mean", "robust", "dp"]

# What a strategy may be told, and what it takes otherwise; None: it must be told.
PARAMETERS: Final[dict[str, dict[str, float | None]]] = {
    "mean": {},
    "robust": {"zeroing": 1.0, "clipping": 1.0},
    "dp": {"noise_multiplier": None, "clients_per_round": None, "zeroing": 1.0},
}


class Combiner:
    """One of TFF's aggregators, then a step of gradient descent by the server."""

    def __init__(
        self,
        strategy: Strategy,
        parameters: Mapping[str, float],
        template: Weights,
        server_learning_rate: float = 1.0,
    ) -> None:
        use_one_thread()
        self._template = template
        aggregator = _aggregator(strategy, _completed(strategy, parameters), template)
        self._weighted = aggregator.is_weighted
        initial, form = _compiled(aggregator, template, server_learning_rate)
        self._initial = _callable(initial)
        self._prepare, self._work = _callable(form.prepare), _callable(form.work)
        self._zero, self._accumulate = _callable(form.zero), _callable(form.accumulate)
        self._report, self._update = _callable(form.report), _callable(form.update)

    def initial_state(self) -> bytes:
        """The state of aggregator and finalizer before the first round."""
        return _to_bytes(self._initial([]))

    def combine(
        self, state: bytes, model: Weights, updates: Sequence[tuple[Weights, float]]
    ) -> tuple[Weights, bytes]:
        """The next model and state from (update, weight) of each accepted node, summed in the order given."""
        if not any(weight > 0 for _, weight in updates):
            return model, state  # a mean of nothing
        server = _from_bytes(state) + [model[name] for name in self._template]
        context = self._prepare(server)
        total = self._zero([])
        for update, weight in updates:
            client: list[Any] = [update[name] for name in self._template]
            if self._weighted:
                client.append(np.float32(weight))
            total = self._accumulate([*total, *self._work([*client, *context])])
        result = self._update([*server, *self._report(total)])
        cut = len(server) - len(self._template)
        arrays = [array.numpy() for array in result[cut : len(server)]]
        return dict(zip(self._template, arrays, strict=True)), _to_bytes(result[:cut])


def _completed(strategy: str, parameters: Mapping[str, float]) -> dict[str, float]:
    """The parameters with those that were left out; an unknown or missing one is an error."""
    known = PARAMETERS[strategy]
    for name in parameters:
        if name not in known:
            raise UsageError(
                f"aggregation: the strategy {strategy} has no parameter {name!r}",
                f"it has {', '.join(known) or 'none'}",
            )
    completed = {}
    for name, default in known.items():
        value = parameters.get(name, default)
        if value is None:
            raise UsageError(f"aggregation: the strategy {strategy} needs the parameter {name}")
        completed[name] = float(value)
    return completed


def _aggregator(strategy: Strategy, parameters: Mapping[str, float], template: Weights) -> Any:
    """TFF's aggregation process of this name."""
    if strategy == "dp":
        noise, clients = parameters["noise_multiplier"], parameters["clients_per_round"]
        try:
            factory = tff.learning.dp_aggregator(noise, clients, zeroing=bool(parameters["zeroing"]))
        except ValueError as err:
            raise UsageError(
                f"aggregation: the strategy dp cannot add noise of {noise} with {clients} clients: {err}",
                "noise_multiplier must be below a tenth of clients_per_round, and neither below zero",
            ) from err
        return factory.create(_model_type(template).trainable)
    if strategy == "robust":
        factory = tff.learning.robust_aggregator(
            zeroing=bool(parameters["zeroing"]), clipping=bool(parameters["clipping"])
        )
    else:
        factory = tff.aggregators.MeanFactory()
    return factory.create(_model_type(template).trainable, tff.TensorType(np.float32))


def _model_type(template: Weights) -> Any:
    trainable = [tff.TensorType(np.float32, array.shape) for array in template.values()]
    return tff.to_type(tff.learning.models.ModelWeights(trainable, []))


def _compiled(aggregator: Any, template: Weights, server_learning_rate: float) -> tuple[Any, Any]:
    """What makes the first state, and one round as a MapReduceForm."""
    model_type = _model_type(template)
    finalizer = tff.learning.templates.build_apply_optimizer_finalizer(
        tff.learning.optimizers.build_sgdm(server_learning_rate), model_type
    )

    def initial_parts() -> Any:
        return tff.federated_zip(
            OrderedDict(aggregator=aggregator.initialize(), finalizer=finalizer.initialize())
        )

    initial = tff.federated_computation(initial_parts)
    server_type = tff.StructType(
        [*tff.structure.iter_elements(initial.type_signature.result.member), ("model", model_type)]
    )
    client_type = tff.StructType([("update", model_type.trainable), ("weight", tff.TensorType(np.float32))])
    if not aggregator.is_weighted:
        client_type = tff.StructType([("update", model_type.trainable)])

    def one_round(server: Any, clients: Any) -> Any:
        arguments = (clients.update, clients.weight) if aggregator.is_weighted else (clients.update,)
        mean = aggregator.next(server.aggregator, *arguments)
        stepped = finalizer.next(server.finalizer, server.model, mean.result)
        state = OrderedDict(aggregator=mean.state, finalizer=stepped.state, model=stepped.result)
        return tff.federated_zip(state), mean.measurements

    placed = (tff.FederatedType(server_type, tff.SERVER), tff.FederatedType(client_type, tff.CLIENTS))
    mapreduce = tff.backends.mapreduce
    return (
        mapreduce.get_state_initialization_computation(initial),
        mapreduce.get_map_reduce_form_for_computation(tff.federated_computation(one_round, placed)),
    )


def _callable(computation: Any) -> Callable[[Sequence[Any]], list[Any]]:
    """A computation that is one graph, as a function from its flat arguments to its flat results."""
    graph = tff.framework.serialize_computation(computation).tensorflow
    if graph.initialize_op:
        raise ShoalError(f"this aggregator keeps variables ({graph.initialize_op}), which has no place here")
    definition = tf.compat.v1.GraphDef()
    graph.graph_def.Unpack(definition)

    def names(binding: Any) -> list[str]:
        return list(binding_names(binding)) if binding.ByteSize() else []

    feeds, fetches = names(graph.parameter), names(graph.result)

    with tf.Graph().as_default() as imported:
        tf.graph_util.import_graph_def(definition, name="")
        placeholders = [imported.get_tensor_by_name(name) for name in feeds]
        specs = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in placeholders]

    def run(arguments: list[Any]) -> list[Any]:
        fed = dict(zip(feeds, arguments, strict=True))
        return list(tf.graph_util.import_graph_def(definition, fed, fetches, name=""))

    concrete = tf.function(run, autograph=False).get_concrete_function(specs)
    return lambda arguments: list(concrete([tf.convert_to_tensor(value) for value in arguments]))


def _to_bytes(state: Sequence[Any]) -> bytes:
    """Tensors as safetensors, which knows no texts: those (DP names its mechanisms) go as their bytes."""
    arrays = {}
    for place, tensor in enumerate(state):
        value = tensor.numpy()
        if isinstance(value, bytes):
            arrays[f"{place:03d}{TEXT}"] = np.frombuffer(value, np.uint8)
        else:
            arrays[f"{place:03d}"] = np.asarray(value, order="C")
    return bytes(safetensors.numpy.save(arrays))


def _from_bytes(state: bytes) -> list[Any]:
    arrays = sorted(safetensors.numpy.load(state).items())
    return [array.tobytes() if name.endswith(TEXT) else array for name, array in arrays]
