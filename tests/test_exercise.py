"""The exercise on real CIFAR-10 with real ImageNet weights: the classroom's mistake fails, the right recipe does not."""

from pathlib import Path

import pytest

import headstart


@pytest.mark.data
def test_the_same_network_fails_or_works_with_its_preprocessing(
    real_cifar10: Path, real_weights: Path, tmp_path: Path
) -> None:
    settings = {"weights_dir": real_weights, "limit": 2000, "seeds": 1, "runs": tmp_path, "language": "en"}
    wrong = headstart.compare(
        real_cifar10,
        ["classroom-mobilenetv2_100", "majority"],
        preset="classroom",
        **settings,  # type: ignore[arg-type]
    )
    right = headstart.compare(real_cifar10, ["mobilenetv2_100-probe", "majority"], **settings)  # type: ignore[arg-type]
    failed, worked = wrong.recipe("classroom-mobilenetv2_100"), right.recipe("mobilenetv2_100-probe")
    assert 0.2 < failed["test_accuracy"]["mean"] < 0.36
    assert failed["fit_verdict"] == "underfits"
    assert worked["test_accuracy"]["mean"] > 0.75
    assert worked["settings"]["preprocessing"]["input_size"] == 128
    assert right.results["data"]["left_out"] == []
