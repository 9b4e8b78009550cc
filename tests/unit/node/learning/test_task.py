"""The user's own task file: its errors name file and line."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from node.contract import UsageError
from node.learning.task import load_task


def task_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "my_task.py"
    path.write_text(text)
    return path


def test_functions_can_be_called(tmp_path: Path) -> None:
    text = "import math\ndef data(seed):\n    return math.floor(seed + 0.5)\n"
    task = load_task(task_file(tmp_path, text))
    assert task.call("data", 3) == 3
    assert task.sha256 == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("x = 1\ndef data(:\n", 2, "syntax"),
        ("x = 1\n\nimport no_such_module\n", 3, "no_such_module"),
        ("raise SystemExit(3)\n", 1, "SystemExit"),
        ("def data(seed):\n    helper()\n\ndef helper():\n    return 1 / 0\n", 5, "division by zero"),
        ("def data():\n    return 1\n", None, "positional argument"),
        ("def model():\n    return 1\n", None, "no function data()"),
    ],
)
def test_errors_name_file_and_line(tmp_path: Path, text: str, line: int | None, said: str) -> None:
    path = task_file(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        load_task(path).call("data", 1)
    assert said in caught.value.message
    assert caught.value.message.startswith(f"{path}:{line}:" if line else f"{path}:")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.py: cannot be read"):
        load_task(tmp_path / "none.py")
