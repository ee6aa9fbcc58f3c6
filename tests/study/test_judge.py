"""Judging a backbone on other data: what can be counted is, what cannot is left open."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from headstart.data.sources import load_images
from headstart.errors import UsageError
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


@pytest.mark.parametrize(("parts", "refused"), [(None, True), (("train", "val"), True), (("train", "test"), False)])
def test_the_training_images_judge_nothing_but_by_a_test_part_of_their_own(
    tmp_path: Path, parts: tuple[str, str] | None, refused: bool
) -> None:
    digits = load_images("digits")
    path = tmp_path / "some.npz"
    if parts is None:
        np.savez(path, X=digits.images[:600], y=digits.labels[:600])
    else:
        np.savez(path, X=digits.images[:600], y=digits.labels[:600], part=np.where(np.arange(600) % 4, *parts))
    images = load_images(str(path))
    if refused:
        with pytest.raises(UsageError, match="very images that are trained on"):
            load_judges([str(path)], images, SilentObserver())
    else:
        assert len(load_judges([str(path)], images, SilentObserver())) == 1
