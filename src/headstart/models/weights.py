"""Weight files: safetensors whose metadata says which network they belong to and which pixels it expects.

The format is written down in `docs/weights.md`. Loading is strict: a missing or an unexpected key is an error that names it.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from headstart.errors import WeightsError
from headstart.files import cache_folder, canonical_json, written_atomically
from headstart.records import Preprocessing

BUNDLED_WEIGHTS = Path(__file__).parent.parent / "weights"
"""The folder of the backbones that come with the package; docs/small-images.md says how they were made."""

Interpolation = Literal["nearest", "bilinear", "bicubic"]
Field = TypeVar("Field")

_NAMED_KEYS = 5  # chosen: enough keys in an error message to recognise a pattern


@dataclass(frozen=True)
class WeightsFile:
    """What a weight file's metadata says.

    Attributes:
        path: of the file.
        architecture: timm's name.
        timm_arguments: keyword arguments for `timm.create_model`.
        input_size: side in pixels that the network was pretrained at.
        interpolation, mean, std: of its preprocessing; mean and std for pixels scaled to 0..1.
        licence, pretraining: words for people.
        metadata: all of it; a file made by `headstart pretrain` says there how it was made.
    """

    path: Path
    architecture: str
    timm_arguments: dict[str, Any]
    input_size: int
    interpolation: Interpolation
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    licence: str
    pretraining: str
    metadata: dict[str, str]


def weights_folders(weights_dir: Path | None = None) -> list[Path]:
    """Return the folders searched for weight files, in order: `--weights-dir`, `HEADSTART_WEIGHTS`, the cache, the package."""
    folders = [weights_dir] if weights_dir is not None else []
    if named := os.environ.get("HEADSTART_WEIGHTS"):
        folders.append(Path(named).expanduser())
    return [*folders, cache_folder() / "weights", BUNDLED_WEIGHTS]


def write_weights_file(
    path: Path,
    architecture: str,
    state: Mapping[str, torch.Tensor],
    preprocessing: Preprocessing,
    metadata: Mapping[str, str],
) -> None:
    """Write a backbone's weights, whole or not at all: matrices and kernels as float16, vectors as float32.

    Vectors are the batch-norm's scales and statistics: they are few, and some of them leave float16's range.

    Args:
        path: of the file.
        architecture: timm's name.
        state: of the backbone without a classifier.
        preprocessing: at the native size.
        metadata: further fields, such as `license`, `pretraining`, `classes`, `recipe`.
    """
    tensors = {
        name: (value.half() if value.ndim > 1 else value).detach().cpu().contiguous()
        for name, value in state.items()
        if not name.endswith("num_batches_tracked")
    }
    contract = {
        "architecture": architecture,
        "input_size": str(preprocessing.input_size),
        "mean": ",".join(map(str, preprocessing.mean)),
        "std": ",".join(map(str, preprocessing.std)),
        "interpolation": preprocessing.interpolation,
    }
    with written_atomically(path) as temporary:
        temporary.write_bytes(_with_sorted_header(save(tensors, metadata={**contract, **metadata})))


def read_weights_file(path: Path) -> WeightsFile:
    """Read and check a weight file's metadata, without reading its tensors.

    Raises:
        WeightsError: there is no such file, it is not safetensors, or its metadata breaks the format; the message says which field.
    """
    fields = _Fields(path, _read_metadata(path))
    return WeightsFile(
        path=path,
        architecture=fields.read("architecture", str, "a timm model name"),
        timm_arguments=fields.read("timm_kwargs", _json_object, "a JSON object", "{}"),
        input_size=fields.read("input_size", _side, "a side in pixels, 1 or more"),
        interpolation=fields.read("interpolation", _interpolation, "nearest, bilinear or bicubic", "bilinear"),
        mean=fields.read("mean", _mean, "three numbers such as 0.5,0.5,0.5"),
        std=fields.read("std", _std, "three numbers above 0 such as 0.25,0.25,0.25"),
        licence=fields.metadata.get("license", ""),
        pretraining=fields.metadata.get("pretraining", ""),
        metadata=fields.metadata,
    )


def find_weights_file(name: str, folders: list[Path]) -> WeightsFile | None:
    """Find the weight file for an architecture: by its metadata, or by its file name.

    Args:
        name: timm architecture name, or a file name without `.safetensors`.
        folders: searched in order; those that do not exist are passed over.

    Returns:
        The first file that fits, or `None`.
    """
    for folder in folders:
        for path in sorted(folder.glob("*.safetensors")) if folder.is_dir() else []:
            metadata = _read_metadata(path)
            if name in (path.stem, metadata.get("architecture")):
                return read_weights_file(path)
    return None


def weight_files(weights_dir: Path | None = None) -> list[WeightsFile]:
    """List every usable weight file in the weight folders."""
    return [
        read_weights_file(path)
        for folder in weights_folders(weights_dir)
        if folder.is_dir()
        for path in sorted(folder.glob("*.safetensors"))
    ]


def load_strictly(module: nn.Module, state: Mapping[str, torch.Tensor], origin: str) -> None:
    """Load a state dict into a module; every key and shape must fit.

    Raises:
        WeightsError: names the missing keys, the unexpected keys, and the shapes that differ.
    """
    expected = module.state_dict()
    # A batch counter is bookkeeping of training; files may leave it out.
    missing = [key for key in expected if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in expected]
    misshapen = [
        f"{key}: expected {tuple(expected[key].shape)}, found {tuple(value.shape)}"
        for key, value in state.items()
        if key in expected and expected[key].shape != value.shape
    ]
    problems = [
        f"{len(keys)} {what} ({', '.join(keys[:_NAMED_KEYS])}{', ...' if len(keys) > _NAMED_KEYS else ''})"
        for what, keys in (
            ("missing keys", missing),
            ("unexpected keys", unexpected),
            ("tensors of another shape", misshapen),
        )
        if keys
    ]
    if problems:
        raise WeightsError(
            f"{origin} does not fit {type(module).__name__}: {'; '.join(problems)}. "
            "Check the architecture and the timm arguments in the file's metadata."
        )
    module.load_state_dict(dict(state), strict=False)


def hash_of_state(state: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 over names, types, shapes and bytes of a state dict: the same weights from anywhere hash alike."""
    digest = hashlib.sha256()
    for name in sorted(state):
        if name.endswith("num_batches_tracked"):
            continue
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _with_sorted_header(file: bytes) -> bytes:
    """The same safetensors file with its header in one order: the library writes metadata in a random one.

    A file is the header's length in 8 bytes, the header as JSON padded with spaces to a multiple of 8, and the tensors,
    whose offsets count from the header's end.
    """
    length = int.from_bytes(file[:8], "little")
    header = canonical_json(json.loads(file[8 : 8 + length])).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + file[8 + length :]


def three_floats(values: Iterable[Any]) -> tuple[float, float, float]:
    """Three numbers, one for each channel, from whatever `float` reads.

    Raises:
        ValueError: they are not three, or not numbers.
    """
    first, second, third = (float(value) for value in values)
    return first, second, third


@dataclass(frozen=True)
class _Fields:
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


def _read_metadata(path: Path) -> dict[str, str]:
    if not path.is_file():
        raise WeightsError(f"There is no file {path.absolute()}. `headstart backbones` lists what is here.")
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a readable safetensors file ({error}). Replace or remove it.") from error


def _json_object(text: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def _side(text: str) -> int:
    side = int(text)
    if side < 1:
        raise ValueError("not a size")
    return side


def _interpolation(text: str) -> Interpolation:
    if text not in get_args(Interpolation):
        raise ValueError("not an interpolation")
    return cast(Interpolation, text)


def _mean(text: str) -> tuple[float, float, float]:
    values = three_floats(text.split(","))
    if not all(map(math.isfinite, values)):
        raise ValueError("not finite")
    return values


def _std(text: str) -> tuple[float, float, float]:
    values = _mean(text)
    if min(values) <= 0:
        raise ValueError("pixels are divided by it")
    return values
