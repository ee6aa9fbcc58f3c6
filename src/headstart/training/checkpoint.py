"""The resume file of a training: one safetensors file with weights, best weights, optimizer state and history. No pickle."""

import json
import logging
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from headstart.errors import RunError
from headstart.files import written_atomically

_log = logging.getLogger(__name__)

_SEPARATOR = "|"
_FORMAT = "3"  # raise it when `progress` or the tensors' names change: a file of another format is not read


def save_checkpoint(
    path: Path,
    network: nn.Module,
    best: dict[str, torch.Tensor],
    averaged: dict[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
    progress: dict[str, Any],
) -> None:
    """Write the state after an epoch, whole or not at all.

    Args:
        path: of the file.
        network: its state dict is written.
        best: the best weights so far.
        averaged: the running average of the weights; empty if none is kept.
        optimizer: the tensors of its state are written; its rates are computed anew from schedule and progress.
        progress: JSON values: epoch, history, states of the callbacks by name.
    """
    tensors = {f"network{_SEPARATOR}{name}": value for name, value in network.state_dict().items()}
    tensors |= {f"best{_SEPARATOR}{name}": value for name, value in best.items()}
    tensors |= {f"averaged{_SEPARATOR}{name}": value for name, value in averaged.items()}
    for number, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor):
                tensors[f"optimizer{_SEPARATOR}{number}{_SEPARATOR}{name}"] = value
    # Copies: safetensors refuses tensors that share memory, and wants them contiguous.
    copies = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in tensors.items()
    }
    with written_atomically(path) as temporary:
        save_file(copies, temporary, metadata={"format": _FORMAT, "progress": json.dumps(progress)})


def epochs_done(path: Path, *, usable: bool = True) -> int:
    """How many epochs a resume file holds; none where there is no file, or none that is whole.

    Args:
        path: of the file.
        usable: count only what `load_checkpoint` would take up, not what another version of headstart wrote.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        is_read = not usable or metadata.get("format") == _FORMAT
        return int(json.loads(metadata["progress"])["epoch"]) if is_read else 0
    except (SafetensorError, OSError, KeyError, json.JSONDecodeError):
        return 0


def _unreadable(path: Path, error: OSError) -> RunError:
    return RunError(
        f"The training's state {path} cannot be read ({error.strerror or error}). Make it readable and run the same command again; "
        "to begin anew, remove it."
    )


def load_checkpoint(
    path: Path, network: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], dict[str, Any]] | None:
    """Put a saved state back into network and optimizer.

    Returns:
        `(best weights, averaged weights, progress)`, or `None` if there is no checkpoint that is whole and of this format: the training
        then starts anew.

    Raises:
        RunError: the file is there and cannot be read.
    """
    if not path.exists():
        return None
    try:
        path.open("rb").close()  # what cannot be opened is not damaged
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                _log.warning(
                    "%s is of another version of headstart and cannot be read; the training starts anew.", path
                )
                path.unlink()
                return None
            progress: dict[str, Any] = json.loads(metadata["progress"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        damaged = path.with_name(f"{path.name}.damaged")
        path.replace(damaged)
        _log.warning("%s is damaged (%s); it is kept as %s, and the training starts anew.", path, error, damaged.name)
        return None
    except OSError as error:
        raise _unreadable(path, error) from error
    parts: dict[str, dict[str, torch.Tensor]] = {"network": {}, "best": {}, "averaged": {}}
    optimizer_state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        part, _, rest = name.partition(_SEPARATOR)
        if part == "optimizer":
            number, _, key = rest.partition(_SEPARATOR)
            optimizer_state.setdefault(int(number), {})[key] = value
        else:
            parts[part][rest] = value
    network.load_state_dict(parts["network"])
    optimizer.load_state_dict({**optimizer.state_dict(), "state": optimizer_state})
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                # As the parameter lies in memory: fused kernels go through both side by side, without a look at their strides.
                state[key] = torch.empty_like(parameter).copy_(value)
    return parts["best"], parts["averaged"], progress
