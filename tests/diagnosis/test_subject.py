"""Networks that cannot be looked into are refused with the way out; those that only look strange are taken as they are."""

import threading
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from headstart.diagnosis.arrival import measure_arrival, sample_images
from headstart.diagnosis.modules import copied, fed_at_first_convolution
from headstart.diagnosis.subject import Subject, batched, subject_of_module
from headstart.errors import UsageError

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)


def unit(image: Image.Image) -> torch.Tensor:
    """Pixels 0..1."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def maps(channels: int = 3) -> nn.Sequential:
    """Layers whose features are maps, as torchvision's `features`."""
    return nn.Sequential(nn.Conv2d(channels, 8, 3, padding=1), nn.ReLU())


def whole(channels: int = 3) -> nn.Sequential:
    """The same, pooled and flattened."""
    return nn.Sequential(*maps(channels), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def taken(module: nn.Module, classes: int = 4, **given: Any) -> Subject:
    """Take in a network in evaluation mode."""
    return subject_of_module(module.eval(), unit, IMAGES, classes, name="mine", **given)


class Keeps(nn.Module):
    """A network that keeps what it computed, for its owner to look at."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = whole()
        self.kept: dict[str, list[torch.Tensor]] = {}

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Features `(B, 8)`."""
        self.features = self.layers(inputs)
        self.kept["all"] = [inputs, self.features]
        return self.features  # type: ignore[no-any-return]


class SpaceToDepth(nn.Module):
    """Four pixels become the channels of one, as some networks begin."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """`(B, 12, H / 2, W / 2)`."""
        return nn.functional.pixel_unshuffle(inputs, 2)


class AnotherOrder(nn.Module):
    """What is registered first runs last, and something registered before never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Conv2d(7, 7, 3)
        self.second = nn.Conv2d(8, 6, 3, padding=1)
        self.first = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Features `(B, 6)`."""
        return self.second(self.first(2 * inputs)).mean((2, 3))  # type: ignore[no-any-return]


def test_a_head_that_expects_pooled_features_is_refused_with_the_way_out() -> None:
    with pytest.raises(UsageError, match=r"The head failed .*\(2, 6, 8, 8\).*AdaptiveAvgPool2d"):
        taken(nn.Conv2d(3, 6, 1), head=nn.Sequential(nn.Dropout(), nn.Linear(6, 4)))
    with pytest.raises(UsageError, match=r"The head made \(2, 8, 8, 4\) .*\(2, 8, 8, 8\).*AdaptiveAvgPool2d"):
        taken(maps(), head=nn.Linear(8, 4))  # as wide as its maps are, by accident
    with pytest.raises(UsageError, match=r"The head failed .*\(2, 8\).*takes what the network returns"):
        taken(whole(), head=nn.Linear(9, 4))
    assert taken(whole(), head=nn.Linear(8, 4)).head is not None


@pytest.mark.parametrize(("outputs", "classes"), [(1000, 4), (3, 4), (1, 4), (3, 2)])
def test_a_head_of_other_classes_is_refused(outputs: int, classes: int) -> None:
    with pytest.raises(UsageError, match=rf"The head made \(2, {outputs}\) .*the data has {classes} classes"):
        taken(whole(), classes, head=nn.Linear(8, outputs))
    assert taken(whole(), 2, head=nn.Linear(8, 1)).head is not None


def test_a_head_on_another_device_is_refused() -> None:
    with pytest.raises(UsageError, match=r"The head is on meta.*head\.cpu\(\)"):
        taken(whole(), head=nn.Linear(8, 4).to("meta"))


def test_a_first_convolution_that_does_not_see_the_image_is_refused() -> None:
    module = nn.Sequential(SpaceToDepth(), *whole(12))
    with pytest.raises(UsageError, match="sees 12 channels"):
        measure_arrival(taken(module), sample_images(IMAGES))


def test_the_first_convolution_is_the_one_that_runs_first() -> None:
    module = AnotherOrder()
    arrival = measure_arrival(taken(module), sample_images(IMAGES))
    assert [arrival.low, arrival.high] == pytest.approx([0, 2], abs=1e-3)
    inputs = torch.rand(2, 3, 8, 8)
    with fed_at_first_convolution(module) as run:
        torch.testing.assert_close(run(2 * inputs), module(inputs))
    never = AnotherOrder()
    never.forward = lambda inputs: inputs.flatten(1)  # type: ignore[method-assign]
    with pytest.raises(UsageError, match="None of the network's convolutions runs"):
        measure_arrival(taken(never), sample_images(IMAGES))


def test_what_a_training_step_left_in_a_network_does_not_keep_it_from_being_copied() -> None:
    module = Keeps()
    module(torch.rand(2, 3, 8, 8)).sum().backward()
    before = module.features
    other = copied(module)
    assert isinstance(other, Keeps)
    assert module.features is before
    assert before.grad_fn is not None
    torch.testing.assert_close(other.features, before.detach())
    assert other.kept["all"][1] is other.features
    arrival = measure_arrival(taken(module), sample_images(IMAGES))
    assert arrival.fit > 0.99
    copied(module)  # after passes without gradients, too


def test_a_network_that_cannot_be_copied_is_refused_with_the_way_out() -> None:
    module = whole()
    module.lock = threading.Lock()  # type: ignore[assignment]
    with pytest.raises(UsageError, match=r"Sequential cannot be copied.*load_state_dict"):
        taken(module)


def test_a_preprocessing_may_give_a_batch_of_one() -> None:
    prepare = batched(lambda image: unit(image).unsqueeze(0), IMAGES)
    torch.testing.assert_close(prepare(IMAGES), torch.from_numpy(IMAGES).permute(0, 3, 1, 2) / 255)


def test_a_path_that_fails_is_named() -> None:
    with pytest.raises(UsageError, match=r"^`serve` turns images"):
        batched(lambda images: 1 / 0, IMAGES, "serve")


class Hides(nn.Module):
    """A network whose layers PyTorch does not know of."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = [whole()]
        self.last = nn.Linear(8, 4)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Logits `(B, 4)`."""
        return self.last(self.trunk[0](inputs))  # type: ignore[no-any-return]


def test_layers_in_a_plain_list_are_named() -> None:
    with pytest.raises(UsageError, match=r"plain list or dictionary \(Hides.trunk\).*ModuleList"):
        measure_arrival(taken(Hides()), sample_images(IMAGES))
