"""What all tests share: caches of their own, and where the development data is, if it is there."""

import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

_HERE = ("127.0.0.1", "::1", "localhost")
_SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Small networks train faster on one thread, and far faster where something else is running beside the tests."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def own_surroundings(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep tests away from the user's caches, weights, language and network."""
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hub")))
    monkeypatch.delenv("HEADSTART_WEIGHTS", raising=False)
    for variable in ("LC_ALL", "LC_MESSAGES", "LANG", "LANGUAGE"):
        monkeypatch.delenv(variable, raising=False)
    connect = socket.socket.connect

    def connect_here(one: socket.socket, address: Any) -> None:
        if one.family != socket.AF_UNIX and address[0] not in _HERE:
            raise OSError(f"Tests have no network, and {address[0]} is elsewhere.")
        connect(one, address)

    monkeypatch.setattr(socket.socket, "connect", connect_here)


@pytest.fixture(scope="session")
def real_weights() -> Path:
    """Folder of real ImageNet weights: `HEADSTART_TEST_WEIGHTS`, or `../shared/weights`; skips without them."""
    folder = Path(os.environ.get("HEADSTART_TEST_WEIGHTS", _SHARED / "weights"))
    if not folder.is_dir():
        pytest.skip(f"no development weights in {folder}")
    return folder


@pytest.fixture(scope="session")
def real_cifar10(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CIFAR-10 as a folder: `HEADSTART_TEST_CIFAR10`, or unpacked from `../shared/data`; skips without it."""
    if named := os.environ.get("HEADSTART_TEST_CIFAR10"):
        return Path(named)
    archive = _SHARED / "data" / "cifar10.tar.xz"
    if not archive.exists():
        pytest.skip(f"no development data in {archive}")
    folder = tmp_path_factory.mktemp("data")
    subprocess.run(["tar", "-xJf", str(archive), "-C", str(folder)], check=True)
    return folder / "cifar10"
