"""Judging a backbone on other data: what can be counted is, what cannot is left open."""

import json
from pathlib import Path

import numpy as np
import torch

from headstart.data.sources import load_images
from headstart.models.weights import BUNDLED_WEIGHTS
from headstart.study.judge import judge_backbone, load_judges
from headstart.study.observer import SilentObserver


def test_where_every_test_image_was_trained_on_no_accuracy_without_them_is_made_up(tmp_path: Path) -> None:
    digits = load_images("digits")
    np.savez(tmp_path / "some.npz", X=digits.images[:300], y=digits.labels[:300])
    (judge,) = load_judges([str(tmp_path / "some.npz")], digits, SilentObserver())
    found = judge_backbone(
        judge,
        BUNDLED_WEIGHTS / "small32_s.safetensors",
        digits,
        np.arange(len(digits.labels)),
        torch.device("cpu"),
        SilentObserver(),
    )
    assert found["exact_duplicates"] == found["near_duplicates"] == found["test_images"] == 60
    assert found["probe_accuracy_without_near_duplicates"] is None
    assert 0 <= found["probe_accuracy"] <= 1
    json.dumps(found, allow_nan=False)
