"""Somebody's own training code: a script's function that builds the network and says how images become its input."""

import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from headstart.errors import UsageError

_KNOWN = (
    "model",
    "preprocess",
    "head",
    "train_mode",
    "batch",
    "history",
    "predictions",
    "loss",
    "optimizer",
    "augment",
    "serve",
)


def is_script(target: str) -> bool:
    """Whether `target` reads like `my_script.py:build`."""
    path, _, name = target.rpartition(":")
    return path.endswith(".py") and name.isidentifier()


def load_build(target: str) -> dict[str, Any]:
    """Run the function that `my_script.py:build` names.

    Args:
        target: path of a Python file, a colon, the name of a function without arguments.

    Returns:
        The keyword arguments of `headstart.diagnose` that it gave: it returns `(model, preprocess)`, or a dictionary with at
        least these two.

    Raises:
        UsageError: file or function are missing, it fails, or it returns something else.
    """
    text, _, name = target.rpartition(":")
    path = Path(text)
    if not path.is_file():
        raise UsageError(
            f"There is no script {path}. Expected FILE.py:FUNCTION, a function that returns model and preprocess."
        )
    with _neighbours_importable(path):
        build = _function(path, name)
        if inspect.signature(build).parameters:
            raise UsageError(
                f"{path}: {name} takes arguments; headstart calls it without any. Give them defaults in a function of its own."
            )
        try:
            made = build()
        except Exception as error:  # somebody else's code fails in its own ways
            raise UsageError(f"{path}: {name}() failed: {type(error).__name__}: {error}") from error
    if isinstance(made, tuple) and len(made) == 2:
        made = {"model": made[0], "preprocess": made[1]}
    if (
        not isinstance(made, Mapping)
        or not isinstance(made.get("model"), nn.Module)
        or not callable(made.get("preprocess"))
    ):
        raise UsageError(
            f"{path}: {name}() returned {type(made).__name__}. Expected (model, preprocess), a torch.nn.Module and a function "
            "from images to its input, or a dictionary with these two."
        )
    if unknown := sorted(set(made) - set(_KNOWN)):
        raise UsageError(
            f"{path}: {name}() returned unknown entries {', '.join(unknown)}. Known are {', '.join(_KNOWN)}."
        )
    return dict(made)


@contextmanager
def _neighbours_importable(path: Path) -> Iterator[None]:
    """Inside the block a script can import the files beside it, at its head and inside its functions."""
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def _function(path: Path, name: str) -> Callable[[], Any]:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(spec.name, module)  # dataclasses look their own module up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # somebody else's code fails in its own ways
        raise UsageError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    function = getattr(module, name, None)
    if not callable(function):
        functions = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        raise UsageError(f"{path} has no function {name!r}. It has {', '.join(functions) or 'none'}.")
    found: Callable[[], Any] = function
    return found
