"""Every test of the data layer has a cache of its own, and cannot see a copy of CIFAR that the user may have."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, and an empty home and working folder."""
    away = tmp_path_factory.mktemp("away")
    monkeypatch.setenv("HEADSTART_CACHE", str(away / "cache"))
    monkeypatch.setenv("HOME", str(away))
    monkeypatch.chdir(away)
    return away / "cache"
