"""The data sets: their shapes, copies on this machine, and the cure where there is none."""

from __future__ import annotations

import hashlib
import http.server
import io
import pickle
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from node.contract import ENV_CACHE, ENV_DATA, HostError, UsageError
from node.data import sources
from node.data.local_copy import Published, find_or_download
from node.data.sources import CIFAR10_BATCHES, load


@pytest.fixture(autouse=True)
def nothing_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENV_CACHE, str(tmp_path / "cache"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.delenv(ENV_DATA, raising=False)


@pytest.mark.parametrize(
    ("name", "shape", "train", "test"),
    [("digits", (8, 8, 1), 1438, 359), ("mnist-5k", (28, 28, 1), 4000, 1000)],
)
def test_real_data_without_a_download(name: str, shape: tuple[int, ...], train: int, test: int) -> None:
    split = load(name)
    assert (len(split.train), len(split.test), split.classes) == (train, test, 10)
    assert split.train.features.shape[1:] == split.input_shape == shape
    assert not split.synthetic
    assert (split.train.features.min(), split.train.features.max()) == (0, 1)
    assert np.bincount(split.test.labels).min() >= test // 10 - 2


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(UsageError, match="mnist-5k"):
        load("minst")


def write_mnist(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.arange(2 * 28 * 28, dtype=np.uint8).reshape(2, 28, 28)
    labels = np.array([3, 9], np.uint8)
    np.savez(path, x_train=pixels, y_train=labels, x_test=pixels[:1], y_test=labels[:1])


@pytest.mark.parametrize("where", ["named", "keras", "cache"])
def test_mnist_from_a_copy(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = {
        "named": tmp_path / "mine",
        "keras": tmp_path / "keras/datasets",
        "cache": tmp_path / "cache/data",
    }
    if where == "named":
        monkeypatch.setenv(ENV_DATA, str(folders["named"]))
    write_mnist(folders[where] / "mnist.npz")
    split = load("mnist")
    assert split.train.labels.tolist() == [3, 9]
    assert split.train.features[0, 0, 1, 0] == np.float32(1 / 255)


def cifar_batch(first_label: int) -> bytes:
    pixels = np.zeros((2, 3072), np.uint8)
    pixels[0, 1024] = 255  # the first pixel's green
    return pickle.dumps({b"data": pixels, b"labels": [first_label, 0]}, protocol=2)


@pytest.mark.parametrize("packed", [True, False])
def test_cifar10_from_a_copy(packed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENV_DATA, str(tmp_path))
    batches = {name: cifar_batch(number) for number, name in enumerate(CIFAR10_BATCHES)}
    if packed:
        with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz") as archive:
            for name, content in batches.items():
                member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    else:
        (tmp_path / "cifar-10-batches-py").mkdir()
        for name, content in batches.items():
            (tmp_path / "cifar-10-batches-py" / name).write_bytes(content)
    split = load("cifar10")
    assert split.train.labels.tolist() == [0, 0, 1, 0, 2, 0, 3, 0, 4, 0]
    assert split.test.labels.tolist() == [5, 0]
    assert split.test.features[0, 0, 0].tolist() == [0, 1, 0]


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('the pickle ran')",)


def test_a_pickle_that_wants_to_run_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENV_DATA, str(tmp_path))
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in CIFAR10_BATCHES:
        (folder / name).write_bytes(pickle.dumps(Evil()))
    with pytest.raises(HostError, match="wants to call"):
        load("cifar10")


@pytest.mark.parametrize(("name", "file"), [("mnist", "mnist.npz"), ("cifar10", "cifar-10-python.tar.gz")])
def test_a_bad_copy_is_named(name: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENV_DATA, str(tmp_path))
    (tmp_path / file).write_bytes(b"no such thing")
    with pytest.raises(HostError, match=file):
        load(name)


class Shelf(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"published bytes")

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def shelf() -> Iterator[str]:
    with http.server.HTTPServer(("127.0.0.1", 0), Shelf) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/thing.npz"
        server.shutdown()
        thread.join()


def published(url: str, content: bytes = b"published bytes", max_bytes: int = 100) -> Published:
    return Published(("thing.npz",), url, hashlib.sha256(content).hexdigest(), max_bytes)


def test_a_download_is_checked_and_kept(shelf: str) -> None:
    path = find_or_download(published(shelf))
    assert path.read_bytes() == b"published bytes"
    assert find_or_download(published("http://127.0.0.1:1/thing.npz")) == path


@pytest.mark.parametrize(
    ("thing", "said"),
    [({"content": b"other"}, "does not have the SHA-256"), ({"max_bytes": 3}, "larger than 3")],
)
def test_a_wrong_download_is_not_kept(shelf: str, thing: dict[str, Any], said: str) -> None:
    with pytest.raises(HostError, match=said):
        find_or_download(published(shelf, **thing))
    with pytest.raises(HostError, match="cannot fetch"):
        find_or_download(published("http://127.0.0.1:1/thing.npz"))


def test_what_cannot_be_reached_names_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MNIST", published("http://127.0.0.1:1/thing.npz"))
    with pytest.raises(HostError) as caught:
        load("mnist")
    assert ENV_DATA in caught.value.hint
