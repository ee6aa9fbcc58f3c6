"""What is seen of a network's batch norm: means that lie off, and deviations that are too wide or too narrow."""

import pytest
import torch
from torch import nn

from headstart.diagnosis.look_network import look_at_network
from headstart.diagnosis.subject import Evidence, Subject


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
    finding = next(one for one in look_at_network(subject_of(module.eval()), clean) if one.cause == 10)
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
        one = Subject("one", module, prepare=lambda images: torch.as_tensor(images), head=head, evidence=evidence)
        found = next(finding for finding in look_at_network(one, torch.zeros(4, 3, 8, 8)) if finding.cause == 12)
        codes[name] = (found.status, found.code)
    assert codes == {
        "head": ("suspected", "head-alone-trained"),
        "part": ("suspected", "not-in-optimizer"),
        "all": ("cleared", "optimizer-complete"),
    }
