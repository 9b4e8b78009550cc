"""AutoGraph's translation of TFF's client work and finalizer into Python that builds graphs, before its use.

It is most of what a process's first training costs, and it is Python alone: done before a fork, it is done
once for all. AutoGraph keeps what it has translated, by code object and options. What is missing here is
translated when it is first used.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from types import CellType, CodeType, FunctionType
from typing import Any, Final

from tensorflow.python.autograph.core.converter import ConversionOptions, ProgramContext
from tensorflow.python.autograph.impl import api

LEARNING: Final = "tensorflow_federated.python.learning"
# Functions that TFF hands to AutoGraph itself, by module.
DECORATED: Final[Mapping[str, Sequence[str]]] = {
    f"{LEARNING}.models.keras_utils": (
        "_KerasModel.reset_metrics",
        "_KerasModel.forward_pass",
        "_KerasModel.predict_on_batch",
        "_KerasModel.report_local_unfinalized_metrics",
    ),
    f"{LEARNING}.templates.apply_optimizer_finalizer": (
        "_build_tff_optimizer_initialize_and_next.<locals>.next_fn",
    ),
    f"{LEARNING}.templates.model_delta_client_work": (
        "build_model_delta_update_with_tff_optimizer.<locals>.client_update",
    ),
}
# Functions that are called by those.
CALLED: Final[Mapping[str, Sequence[str]]] = {
    "attr._compat": ("get_generic_base",),
    "attr._funcs": ("has",),
    "tensorflow_federated.python.common_libs.structure": ("update_struct",),
    f"{LEARNING}.loop_builder": ("_for_iter_dataset_fn",),
    f"{LEARNING}.metrics.counters": ("NumBatchesCounter.update_state", "NumExamplesCounter.update_state"),
    f"{LEARNING}.models.keras_utils": (
        "_KerasModel.__init__.<locals>._WeightedMeanLossMetric.update_state",
        "_KerasModel._forward_pass",
        "_KerasModel.get_metrics",
    ),
    f"{LEARNING}.optimizers.optimizer": ("check_weights_gradients_match", "handle_indexed_slices_gradients"),
    f"{LEARNING}.optimizers.sgdm": ("_SGD.initialize", "_SGD.next", "_SGD.set_hparams"),
    f"{LEARNING}.templates.apply_optimizer_finalizer": ("reject_non_finite_update",),
    f"{LEARNING}.templates.model_delta_client_work": ("_choose_client_weight",),
    f"{LEARNING}.tensor_utils": ("zero_all_if_any_non_finite",),
}


def convert_templates() -> None:
    """Before the first operation, and so before a fork; takes a second."""
    for functions, is_decorated in ((DECORATED, True), (CALLED, False)):
        options = ConversionOptions(recursive=True, user_requested=is_decorated, optional_features=())
        for module, names in functions.items():
            for name in names:
                api._TRANSPILER.transform(find_function(module, name), ProgramContext(options))


def find_function(module_name: str, qualified: str) -> FunctionType:
    """A function with this code; one that another defines as it runs closes over nothing yet."""
    module = importlib.import_module(module_name)
    outer: Any = module
    for name in qualified.partition(".<locals>")[0].split("."):
        outer = inspect.getattr_static(outer, name)
    outer = inspect.unwrap(getattr(outer, "python_function", outer))
    for code in _codes(outer.__code__):
        if code.co_qualname == qualified:
            names = tuple(CellType() for _ in code.co_freevars)
            return FunctionType(code, vars(module), code.co_name, closure=names)
    raise LookupError(f"{module_name} has no {qualified}")


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)
