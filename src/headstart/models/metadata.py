"""A weight file's metadata, read field by field: an error names the file, the field, what it is and what was expected.

The functions that read one field raise `ValueError` where its text is not what they read.
"""

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args

from safetensors import SafetensorError, safe_open

from headstart.errors import WeightsError

Interpolation = Literal["nearest", "bilinear", "bicubic"]
Field = TypeVar("Field")


@dataclass(frozen=True)
class MetadataFields:
    """The metadata of the file at a path, read field by field so that an error can name the field."""

    path: Path
    metadata: dict[str, str]

    def read(self, name: str, parse: Callable[[str], Field], expected: str, default: str | None = None) -> Field:
        """Parse one field; `parse` raises `ValueError` where the text is not what is `expected`."""
        text = self.metadata.get(name, default)
        where = f"expected {expected}. docs/weights.md shows the format."
        if text is None:
            raise WeightsError(f"{self.path}: its metadata has no {name!r}; {where}")
        try:
            return parse(text)
        except ValueError as error:
            raise WeightsError(f"{self.path}: {name!r} in its metadata is {text!r}; {where}") from error


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file, without reading its tensors.

    Raises:
        WeightsError: there is no such file, or it is not safetensors.
    """
    if not path.is_file():
        raise WeightsError(f"There is no file {path.absolute()}. `headstart backbones` lists what is here.")
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a readable safetensors file ({error}). Replace or remove it.") from error


def json_object(text: str) -> dict[str, Any]:
    """A JSON object."""
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def side(text: str) -> int:
    """A side in pixels."""
    pixels = int(text)
    if pixels < 1:
        raise ValueError("not a size")
    return pixels


def interpolation(text: str) -> Interpolation:
    """The name of an interpolation."""
    if text not in get_args(Interpolation):
        raise ValueError("not an interpolation")
    return cast(Interpolation, text)


def finite(text: str) -> tuple[float, float, float]:
    """Three finite numbers with commas between them."""
    values = three_floats(text.split(","))
    if not all(map(math.isfinite, values)):
        raise ValueError("not finite")
    return values


def positive(text: str) -> tuple[float, float, float]:
    """Three numbers above 0 with commas between them."""
    values = finite(text)
    if min(values) <= 0:
        raise ValueError("pixels are divided by it")
    return values


def three_floats(values: Iterable[Any]) -> tuple[float, float, float]:
    """Three numbers, one for each channel, from whatever `float` reads.

    Raises:
        ValueError: they are not three, or not numbers.
    """
    first, second, third = (float(value) for value in values)
    return first, second, third
