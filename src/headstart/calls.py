"""A call of one of the public functions, written as its user could write it."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from headstart.records import Preprocessing, Recipe, changed_fields

_LEFT_OUT = frozenset({"observer", "command", "callbacks"})
"""They watch a run or name it; of callbacks, the user's own objects, nothing can be written that makes them again."""


_LONGEST = 20
"""Chosen: a sequence that is longer is data, not a setting."""


def written_call(function: Callable[..., Any], given: Mapping[str, Any]) -> str:
    """Write a call with every argument that differs from its default; the first one always, without its name.

    Args:
        function: one of the package's public functions.
        given: its arguments by name.

    Returns:
        One line of Python, such as `headstart.compare('digits', seeds=1)`. Paths are written as text; observer, command and
        callbacks are left out.
    """
    written: list[str] = []
    for number, (name, parameter) in enumerate(inspect.signature(function).parameters.items()):
        if name in _LEFT_OUT or name not in given:
            continue
        if number == 0:
            written.append(_written(given[name]))
        elif _differs(given[name], parameter.default):
            written.append(f"{name}={_written(given[name])}")
    return f"headstart.{function.__name__}({', '.join(written)})"


def _differs(value: Any, default: Any) -> bool:
    """Whether an argument is not its default; arrays and modules, which nothing equals plainly, have `None` for theirs."""
    return value is not None if default is None else bool(_plain(value) != _plain(default))


def _plain(value: Any) -> Any:
    """A value to compare: a path and its text are the same, and so are a list and a tuple of the same things."""
    if isinstance(value, Path):
        return str(value)
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value


def _written(value: Any) -> str:
    if isinstance(value, np.generic):
        value = value.item()  # 3 and not np.int64(3)
    if isinstance(value, Path):
        return repr(str(value))
    if isinstance(value, list | tuple):
        if len(value) > _LONGEST:
            return f"<{type(value).__name__} of {len(value)}>"
        inside = ", ".join(map(_written, value))
        return f"[{inside}]" if isinstance(value, list) else f"({inside}{',' if len(value) == 1 else ''})"
    if isinstance(value, Recipe | Preprocessing):
        settings = [f"{name}={_written(getattr(value, name))}" for name in changed_fields(value)]
        return f"headstart.{type(value).__name__}({', '.join(settings)})"
    if value is None or isinstance(value, str | bool | int | float):
        return repr(value)
    return getattr(
        value, "__name__", f"<{type(value).__name__}>"
    )  # what nobody can write down: by its name, or its kind
