"""TensorFlow and TensorFlow Federated as this project uses them.

A process may be forked after this import and before the first operation; after one, its children hang.
"""

from __future__ import annotations

import contextlib
import gc
import os
import warnings
from collections.abc import Iterator

# Read while TensorFlow is imported: without it every process greets on standard error.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@contextlib.contextmanager
def _nothing_collected() -> Iterator[None]:
    """While much is made and next to nothing dropped; it takes a fifth of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


with _nothing_collected(), warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the libraries among themselves
    import tensorflow as tf
    import tensorflow_federated as tff
    from tensorflow_federated.python.core.impl.context_stack.set_default_context import set_no_default_context
    from tensorflow_federated.python.core.impl.utils.tensorflow_utils import (
        extract_tensor_names_from_binding as binding_names,
    )
    from tensorflow_federated.python.learning.templates.model_delta_client_work import (
        build_model_delta_update_with_tff_optimizer as build_client_work,
    )

# TFF's default context starts the helper process `worker_binary`; without one such a call is an error.
set_no_default_context()

__all__ = ["binding_names", "build_client_work", "tf", "tff", "use_one_thread"]


def use_one_thread() -> None:
    """One thread within and one between operations: the number of threads changes the bits of a result."""
    if tf.config.threading.get_intra_op_parallelism_threads() != 1:
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
