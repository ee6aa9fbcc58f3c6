"""This machine: versions, device, threads, folders, what is missing and the command that repairs it."""

import importlib
import importlib.metadata
import os
import platform
import re
import shlex
import sys
from collections.abc import MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.errors import EnvironmentProblem, UsageError
from headstart.files import cache_folder
from headstart.version import __version__

if TYPE_CHECKING:
    import torch

PACKAGES = ("torch", "torchvision", "timm", "onnxruntime", "numpy", "scipy", "scikit-learn", "Pillow", "safetensors")
"""Packages whose versions can change a result; each is recorded with every trial."""

_SPINS = "1000"
"""How often a thread of PyTorch looks whether the others are done before it sleeps. GNU's OpenMP takes 300,000 unless told otherwise:
on two cores that other programs use, too, threads then wait for one that has no core, and keep theirs from it. A thousand made no
measurable difference to a small network on cores of its own (docs/log.md)."""

_PLAIN_WORD = re.compile(r"[\w.:/\\=+-]+")
_IMPORTED = ("torch", "torchvision", "timm", "onnxruntime")  # those whose builds are known to clash


@dataclass(frozen=True)
class Problem:
    """Something that is missing or clashes, and the command that repairs it."""

    what: str
    repair: str


def share_cores(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let PyTorch's threads sleep when they wait, so that training beside other programs loses no more than its share of the cores.

    Args:
        environment: of a process that has not imported torch yet. Who set `OMP_WAIT_POLICY` or `GOMP_SPINCOUNT` keeps it.
    """
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", _SPINS)


def require_working_packages() -> None:
    """Import the heavy packages once, and say in one message which of them clash.

    Raises:
        EnvironmentProblem: one of them does not import; the message has their versions and the command that repairs it.
    """
    if problems := find_problems():
        raise EnvironmentProblem(" ".join(f"{problem.what} Repair: {problem.repair}" for problem in problems))


def find_problems() -> list[Problem]:
    """Import every heavy package and collect those that fail."""
    problems = []
    for name in _IMPORTED:
        try:
            importlib.import_module(name)
        except Exception as error:  # noqa: BLE001 - a broken binary package raises whatever it likes
            versions = ", ".join(f"{package} {_version(package)}" for package in ("torch", "torchvision", "timm"))
            problems.append(
                Problem(
                    f"{name} does not import ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}); "
                    f"installed are {versions}.",
                    f"{Path(sys.executable).name} -m pip install --upgrade torch torchvision timm onnxruntime",
                )
            )
    return problems


def choose_device(name: str = "auto") -> "torch.device":
    """Choose the device: CUDA if there is one, then Apple's MPS, then the CPU; or the one that was asked for.

    Raises:
        UsageError: the name is not a device.
        EnvironmentProblem: the device is not on this machine.
    """
    import torch

    available = available_devices()
    if name == "auto":
        return torch.device(available[-1])
    kind = name.split(":")[0]
    if kind not in ("cpu", "cuda", "mps"):
        raise UsageError(f"--device takes auto, cpu, cuda or mps, not {name!r}.")
    if kind not in available:
        raise EnvironmentProblem(f"Device {name!r} is not on this machine; it has {', '.join(available)}.")
    return torch.device(name)


def wait_for(device: "torch.device") -> None:
    """Wait until a GPU has done what it was given, so that a clock can be read."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def available_devices() -> list[str]:
    """Return the device types of this machine, slowest first."""
    import torch

    devices = ["cpu"]
    if torch.backends.mps.is_available():
        devices.append("mps")
    if torch.cuda.is_available():
        devices.append("cuda")
    return devices


def describe_environment(device: "torch.device") -> dict[str, Any]:
    """Return what a result must be read with: versions, processor, device, threads. Strings and integers only."""
    import torch

    facts: dict[str, Any] = {"headstart": __version__, "python": platform.python_version()}
    facts |= {package.lower(): _version(package) for package in PACKAGES}
    facts |= {
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count() or 0,
        "device": str(device),
        "threads": torch.get_num_threads(),
    }
    if device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(device)
        facts["cuda"] = str(torch.version.cuda)
    return facts


def command_line(*words: str) -> str:
    """Words as one line that this machine's shell takes apart again.

    On Windows in double quotes, the only ones that both of its shells know; cmd still replaces `%NAME%` in them, PowerShell `$NAME`.
    """
    return " ".join(_quoted_on_windows(word) for word in words) if os.name == "nt" else shlex.join(words)


def folders() -> dict[str, str]:
    """Return where caches, weights and downloads are looked for."""
    cache = cache_folder()
    return {
        "cache": str(cache),
        "downloads": str(cache / "downloads"),
        "weights": os.environ.get("HEADSTART_WEIGHTS", "") or str(cache / "weights"),
    }


def _quoted_on_windows(word: str) -> str:
    """A word as Windows takes it: names of files hold no double quote there, and backslashes before one have to be doubled."""
    if _PLAIN_WORD.fullmatch(word):
        return word
    ending = word[len(word.rstrip("\\")) :]
    return f'"{word}{ending}"'


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        return platform.processor() or platform.machine()
    return platform.processor() or platform.machine()
