"""What is seen of a network: of its batch norm means that lie off, deviations too wide or too narrow; parameters that cannot move."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from headstart.diagnosis.look_network import look_at_network
from headstart.diagnosis.subject import Evidence, Subject

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)


def subject_of(module: nn.Module) -> Subject:
    return Subject("one", module, prepare=lambda images: torch.as_tensor(images))


@pytest.mark.parametrize(
    ("scale", "shift", "status"),
    [(1.0, 0.0, "cleared"), (0.5, 0.0, "suspected"), (2.0, 0.0, "suspected"), (1.0, 1.0, "suspected")],
)
def test_images_unlike_the_stored_statistics_are_suspected(scale: float, shift: float, status: str) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, momentum=None), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    images = torch.randn(64, 3, 16, 16)
    with torch.no_grad():
        module(images)
        norm = module[1]
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        deviation = norm.running_var.sqrt() if norm.running_var is not None else torch.ones(8)
        clean = images * scale
        norm.running_mean += shift * deviation
    finding = next(one for one in look_at_network(subject_of(module.eval()), clean, IMAGES) if one.cause == 10)
    assert finding.status == status
    assert finding.values["spread"] == pytest.approx(scale, rel=0.05)


def test_an_optimizer_that_holds_the_head_alone_is_told_as_that() -> None:
    module, head = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), nn.Linear(8, 10)
    codes = {}
    for name, parameters in {
        "head": [*head.parameters()],
        "part": [*head.parameters(), next(module.parameters())],
        "all": [*module.parameters(), *head.parameters()],
    }.items():
        evidence = Evidence(optimizer=torch.optim.SGD(parameters, lr=0.1))
        one = Subject("one", module, prepare=as_inputs, head=head, evidence=evidence)
        codes[name] = of_optimizer(one)[:2]
    assert codes == {
        "head": ("suspected", "head-alone-trained"),
        "part": ("suspected", "not-in-optimizer"),
        "all": ("cleared", "optimizer-complete"),
    }


@pytest.mark.parametrize("detached", [True, False])
def test_parameters_that_no_gradient_reaches_cannot_move_though_the_optimizer_holds_them(detached: bool) -> None:
    class Detaching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten())
            self.head = nn.Linear(8, 10)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            with torch.set_grad_enabled(not detached):
                features = self.backbone(images)
            scores: torch.Tensor = self.head(features)
            return scores

    module = Detaching().eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    evidence = Evidence(optimizer=torch.optim.SGD(module.parameters(), lr=0.1))
    status, code, values = of_optimizer(Subject("one", module, as_inputs, classifier="head", evidence=evidence))
    if detached:
        assert (status, code) == ("suspected", "no-gradient")
        assert values == {"parameters": 4, "total": 6, "layer": "backbone.0.weight"}
    else:
        assert (status, code) == ("cleared", "optimizer-complete")
    assert not module.training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())


def test_what_only_training_uses_is_reached_by_a_gradient() -> None:
    """As in Inception: a second output that is there in training alone."""

    class Auxiliary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
            self.head, self.auxiliary = nn.Linear(8, 10), nn.Linear(8, 10)

        def forward(self, images: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
            features = self.backbone(images)
            scores = self.head(features)
            return (scores, self.auxiliary(features)) if self.training else scores

    module = Auxiliary().eval()
    evidence = Evidence(optimizer=torch.optim.SGD(module.parameters(), lr=0.1))
    found = of_optimizer(Subject("one", module, as_inputs, classifier="head", evidence=evidence))
    assert found[:2] == ("cleared", "optimizer-complete")


def test_an_optimizer_that_has_nothing_to_train_misses_nothing() -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).requires_grad_(False)
    evidence = Evidence(optimizer=torch.optim.SGD(module.parameters(), lr=0.1))
    assert of_optimizer(Subject("one", module, as_inputs, evidence=evidence))[:2] == ("cleared", "optimizer-complete")


def of_optimizer(subject: Subject) -> tuple[str, str, dict[str, Any]]:
    finding = next(one for one in look_at_network(subject, torch.zeros(4, 3, 8, 8), IMAGES) if one.cause == 12)
    return finding.status, finding.code, dict(finding.values)


def as_inputs(images: npt.NDArray[np.uint8]) -> torch.Tensor:
    return torch.as_tensor(images).permute(0, 3, 1, 2).float()


def test_batch_norm_that_keeps_no_statistics_is_not_called_absent() -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, track_running_stats=False), nn.AdaptiveAvgPool2d(1))
    findings = {one.cause: one for one in look_at_network(subject_of(module.eval()), torch.randn(8, 3, 16, 16), IMAGES)}
    assert [(findings[cause].status, findings[cause].code) for cause in (8, 10)] == [
        ("could-not-look", "no-running-statistics")
    ] * 2
