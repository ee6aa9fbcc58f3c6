"""Weight files: safetensors whose metadata says which network they belong to and which pixels it expects.

The format is written down in `docs/weights.md`. Loading is strict: a missing or an unexpected key is an error that names it.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import nn

from headstart.errors import WeightsError
from headstart.files import cache_folder, canonical_json, written_atomically
from headstart.models.metadata import (
    Interpolation,
    MetadataFields,
    finite,
    interpolation,
    json_object,
    positive,
    read_metadata,
    side,
)
from headstart.models.timm_networks import create_network, fixed_side
from headstart.records import Preprocessing

BUNDLED_WEIGHTS = Path(__file__).parent.parent / "weights"
"""The folder of the backbones that come with the package; docs/small-images.md says how they were made."""

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


@dataclass(frozen=True)
class UnusableFile:
    """A `.safetensors` file in a weight folder that is no backbone, and the reason, which names the file."""

    path: Path
    reason: str


def weights_folders(weights_dir: Path | None = None) -> list[Path]:
    """Return the folders searched for weight files, each once: `--weights-dir`, `HEADSTART_WEIGHTS`, the cache, the package."""
    folders = [weights_dir] if weights_dir is not None else []
    if named := os.environ.get("HEADSTART_WEIGHTS"):
        folders.append(Path(named).expanduser())
    folders += [cache_folder() / "weights", BUNDLED_WEIGHTS]
    once: dict[Path, Path] = {}
    for folder in folders:
        once.setdefault(folder.resolve(), folder)
    return list(once.values())


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
    fields = MetadataFields(path, read_metadata(path))
    return WeightsFile(
        path=path,
        architecture=fields.read("architecture", str, "a timm model name"),
        timm_arguments=fields.read("timm_kwargs", json_object, "a JSON object", "{}"),
        input_size=fields.read("input_size", side, "a side in pixels, 1 or more"),
        interpolation=fields.read("interpolation", interpolation, "nearest, bilinear or bicubic", "bilinear"),
        mean=fields.read("mean", finite, "three numbers such as 0.5,0.5,0.5"),
        std=fields.read("std", positive, "three numbers above 0 such as 0.25,0.25,0.25"),
        licence=fields.metadata.get("license", ""),
        pretraining=fields.metadata.get("pretraining", ""),
        metadata=fields.metadata,
    )


def find_weights_file(name: str, folders: list[Path]) -> WeightsFile | None:
    """Read the weight file that a name means, as `path_by_name` finds it.

    Raises:
        WeightsError: that file breaks the format; others in the folders may.
    """
    path = path_by_name(name, folders)
    return None if path is None else read_weights_file(path)


def path_by_name(name: str, folders: list[Path]) -> Path | None:
    """Find the weight file that a name means: by its file name in all folders, and only then by its architecture.

    Args:
        name: a file name without `.safetensors`, or a timm architecture name.
        folders: searched in order; those that do not exist are passed over.

    Returns:
        The first file of this name, usable or not; without one the first usable file of this architecture; or `None`.
    """
    paths = _paths_in(folders)
    of_this_name = (path for path in paths if path.stem == name)
    return next(of_this_name, None) or next((path for path in paths if _is_usable(path, name)), None)


def weight_files(weights_dir: Path | None = None) -> list[WeightsFile]:
    """List every usable weight file in the weight folders."""
    return [file for file in inspect_weight_files(weights_dir) if isinstance(file, WeightsFile)]


def inspect_weight_files(weights_dir: Path | None = None) -> list[WeightsFile | UnusableFile]:
    """Check every weight file in the weight folders, in the order of the search, without reading tensors."""
    found: list[WeightsFile | UnusableFile] = []
    for path in _paths_in(weights_folders(weights_dir)):
        try:
            found.append(_read_usable(path))
        except WeightsError as error:
            found.append(UnusableFile(path, str(error)))
    return found


def shapes_in(path: Path) -> dict[str, torch.Size]:
    """The shapes of a safetensors file's tensors by their names, without reading the tensors."""
    with safe_open(path, framework="pt") as tensors:
        return {name: torch.Size(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118 - not a dict


def network_of(file: WeightsFile) -> nn.Module:
    """Make the network that a weight file describes, without classifier, with freshly drawn weights.

    Raises:
        WeightsError: timm cannot make it, or it takes images of another size only than the file says.
    """
    network = create_network(file.architecture, file.timm_arguments, str(file.path))
    only = fixed_side(network, file.timm_arguments)
    if only not in (None, file.input_size):
        raise WeightsError(
            f"{file.path}: 'input_size' in its metadata is {file.input_size}, but {file.architecture} takes {only} px only. "
            "Correct it, or give the network's size in 'timm_kwargs' as img_size."
        )
    return network


def load_strictly(module: nn.Module, state: Mapping[str, torch.Tensor], origin: str) -> None:
    """Load a state dict into a module; every key and shape must fit.

    Raises:
        WeightsError: names the missing keys, the unexpected keys, and the shapes that differ.
    """
    _require_fit(module, {name: value.shape for name, value in state.items()}, origin)
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


def _require_fit(module: nn.Module, found: Mapping[str, torch.Size], origin: str) -> None:
    """Raise `WeightsError` unless tensors of these names and shapes are a module's state, batch counters apart."""
    expected = {name: value.shape for name, value in module.state_dict().items()}
    # A batch counter is bookkeeping of training; files may leave it out.
    missing = [key for key in expected if key not in found and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in found if key not in expected]
    misshapen = [
        f"{key}: expected {tuple(expected[key])}, found {tuple(shape)}"
        for key, shape in found.items()
        if key in expected and expected[key] != shape
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


def _paths_in(folders: list[Path]) -> list[Path]:
    return [path for folder in folders for path in sorted(folder.glob("*.safetensors")) if not path.is_dir()]


def _is_usable(path: Path, architecture: str) -> bool:
    try:
        if read_metadata(path).get("architecture") != architecture:
            return False
        _read_usable(path)
    except WeightsError:  # nobody asked for this very file; `headstart backbones` lists it with the reason
        return False
    return True


def _read_usable(path: Path) -> WeightsFile:
    """Read a weight file's metadata, and check that timm makes its network and that its tensors fit there."""
    file = read_weights_file(path)
    with torch.device("meta"):  # shapes only: no memory, no random numbers
        network = network_of(file)
    _require_fit(network, shapes_in(path), str(path))
    return file


def _with_sorted_header(file: bytes) -> bytes:
    """The same safetensors file with its header in one order: the library writes metadata in a random one.

    A file is the header's length in 8 bytes, the header as JSON padded with spaces to a multiple of 8, and the tensors,
    whose offsets count from the header's end.
    """
    length = int.from_bytes(file[:8], "little")
    header = canonical_json(json.loads(file[8 : 8 + length])).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + file[8 + length :]
