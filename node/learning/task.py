"""The user's own task: a Python file with `model()` and `data(seed)`."""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from node.contract import UsageError

HINT = (
    "a task file has model(), which returns a Keras model that is not compiled, and data(seed), which "
    "returns x_train, y_train, x_test, y_test"
)
_T = TypeVar("_T")


@dataclass(frozen=True)
class Task:
    """What a task file defines; calling it names the file's own line when that raises."""

    path: Path
    sha256: str
    module: ModuleType

    def call(self, name: str, *arguments: object) -> Any:
        function = self.function(name)
        return _guarded(self.path, lambda: function(*arguments))

    def function(self, name: str) -> Callable[..., Any]:
        found = getattr(self.module, name, None)
        if not callable(found):
            raise UsageError(f"{self.path}: there is no function {name}()", HINT)
        function: Callable[..., Any] = found
        return function


def load_task(path: Path) -> Task:
    """Run the file as a module."""
    try:
        source = path.read_bytes()
    except OSError as err:
        raise UsageError(f"{path}: cannot be read: {err.strerror}", HINT) from err
    module = ModuleType("shoal_task")
    module.__file__ = str(path)
    code = _guarded(path, lambda: compile(source, str(path), "exec"))
    _guarded(path, lambda: exec(code, module.__dict__))
    return Task(path, hashlib.sha256(source).hexdigest(), module)


def _guarded(path: Path, action: Callable[[], _T]) -> _T:
    """Whatever the user's code raises becomes one message with the file and line that it comes from."""
    try:
        return action()
    except UsageError:
        raise
    except SyntaxError as err:
        raise UsageError(f"{err.filename or path}:{err.lineno}: {err.msg}", HINT) from err
    except (Exception, SystemExit) as err:  # foreign code may raise anything
        frames = traceback.extract_tb(err.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(path)]
        where = f"{path}:{lines[-1]}" if lines else str(path)
        raise UsageError(f"{where}: {type(err).__name__}: {err}", HINT) from err
