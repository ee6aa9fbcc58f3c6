"""How a classifier looks at images before it answers."""

import pytest
import torch
from torch import nn

from headstart.models.backbones import untrained_backbone
from headstart.models.cost import complexity
from headstart.models.looks import ONCE, Looks, looks_of, seen_once, sure_at_first
from headstart.models.network import NetworkSpec, build_network, classifier_spec
from headstart.records import Augmentation, Recipe

EVERYTHING = Looks(mirrored=True, shifted=True)


def _pixel(images: torch.Tensor) -> torch.Tensor:
    """Two logits, of which the first is a single pixel beside the middle: what a shift or a mirror changes, it shows."""
    return torch.stack([images[:, 0, 3, 2], torch.zeros(len(images))], 1)


def _images(*values: float) -> torch.Tensor:
    """Each with that value in the pixel that counts, and with one that tells where it is everywhere else."""
    images = torch.arange(64.0).view(8, 8).div(1000).expand(len(values), 3, 8, 8).clone()
    images[:, :, 3, 2] = torch.tensor(values)[:, None]
    return images


def test_a_close_answer_is_the_mean_over_the_image_and_its_four_neighbours() -> None:
    close = _images(0.1)
    neighbours = [float(close[0, 0, row, column]) for row, column in ((2, 1), (4, 3), (2, 3), (4, 1))]
    found = Looks(shifted=True).answer(_pixel, close)
    assert found[0, 0] == pytest.approx(sum([0.1, *neighbours]) / 5)
    assert found[0, 1] == 0


def test_a_sure_answer_stays_as_it_is_and_costs_nothing_more() -> None:
    looked: list[int] = []

    def counted(images: torch.Tensor) -> torch.Tensor:
        looked.append(len(images))
        return _pixel(images)

    images = _images(3.0, 0.1, -3.0)
    found = Looks(shifted=True).answer(counted, images)
    assert looked == [3, 1, 1, 1, 1]
    assert torch.equal(found[[0, 2]], _pixel(images)[[0, 2]])
    looked.clear()
    Looks(shifted=True).answer(counted, images[[0, 2]])
    assert looked == [2]


def test_an_answer_does_not_depend_on_what_else_is_in_the_batch() -> None:
    images = _images(3.0, 0.1, -0.2, 0.05, -3.0)
    together = EVERYTHING.answer(_pixel, images)
    alone = torch.cat([EVERYTHING.answer(_pixel, image[None]) for image in images])
    torch.testing.assert_close(together, alone)


def test_copies_shifted_by_a_pixel_are_filled_by_reflection() -> None:
    seen: list[torch.Tensor] = []

    def watched(images: torch.Tensor) -> torch.Tensor:
        seen.append(images)
        return torch.zeros(len(images), 2)

    image = torch.arange(16.0).view(1, 1, 4, 4)
    Looks(shifted=True).answer(watched, image)
    down_right = seen[2][0, 0]
    assert torch.equal(down_right[1:, 1:], image[0, 0, :3, :3])
    assert torch.equal(down_right[0], torch.tensor([5.0, 4, 5, 6]))
    assert all(copy.shape == image.shape for copy in seen)


@pytest.mark.parametrize(
    ("augmentation", "input_size", "expected"),
    [
        ("none", 32, ONCE),
        ("shift", 32, Looks(shifted=True)),
        ("shift-alternate", 64, EVERYTHING),
        ("shift-flip", 96, Looks(mirrored=True)),
        ("crop-flip", 32, Looks(mirrored=True)),
    ],
)
def test_a_network_looks_as_it_was_trained(augmentation: Augmentation, input_size: int, expected: Looks) -> None:
    scratch = Recipe("one", kind="scratch", network="fast", augmentation=augmentation)
    tuned = Recipe("two", kind="finetune", backbone="small32_s", unfreeze="all", augmentation=augmentation)
    for spec in (
        classifier_spec(input_size, 10, None, scratch),
        classifier_spec(input_size, 10, untrained_backbone("small32_s"), tuned),
    ):
        assert spec.looks == expected
        assert looks_of(build_network(spec)) == expected


def test_whatever_happens_a_network_looks_again_afterwards() -> None:
    network = build_network(NetworkSpec("fast", 3, 8, width=4, mirrored=True, shifted=True))
    with seen_once(network):
        assert looks_of(network) == ONCE
    with sure_at_first(network):
        assert looks_of(network) == Looks(mirrored=True)
    with pytest.raises(RuntimeError), seen_once(network):
        network(torch.zeros(1, 5, 8, 8))  # no such channels
    assert looks_of(network) == EVERYTHING
    assert looks_of(nn.Linear(2, 2)) == ONCE


def test_what_a_network_costs_does_not_depend_on_how_sure_it_is() -> None:
    once = complexity(build_network(NetworkSpec("fast", 3, 8, width=4)), 8).macs
    unsure = build_network(NetworkSpec("fast", 3, 8, width=4, mirrored=True, shifted=True))
    assert complexity(unsure, 8).macs == 2 * once
    assert EVERYTHING.passes == pytest.approx(2 * (1 + 0.2 * 4))


@pytest.mark.parametrize("kind", ["fast", "backbone"])
def test_a_whole_network_looks_again_in_evaluation_mode_only(kind: str) -> None:
    recipe = Recipe("one", kind="finetune", backbone="small32_s", unfreeze="all", augmentation="shift-flip")
    tuned = classifier_spec(8, 3, untrained_backbone("small32_s"), recipe)
    spec = tuned if kind == "backbone" else NetworkSpec("fast", 3, 8, width=4, mirrored=True, shifted=True)
    network = build_network(spec).eval()
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))

    def both(shown: torch.Tensor) -> torch.Tensor:
        with seen_once(network):
            answer: torch.Tensor = (network(shown) + network(shown.flip(3))) / 2
        return answer

    with torch.no_grad():
        assert (
            both(images).softmax(1).topk(2).values.diff(dim=1).abs() < 0.3
        ).all()  # untrained: every answer is close
        padded = nn.functional.pad(images, (1, 1, 1, 1), mode="reflect")
        copies = [padded[:, :, row : row + 8, column : column + 8] for row in (0, 2) for column in (0, 2)]
        expected = torch.stack([both(images), *map(both, copies)]).mean(0)
        torch.testing.assert_close(network(images), expected)
        network.train()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        trained = network(images)
        network.eval()
        with seen_once(network):
            torch.testing.assert_close(trained, network(images))
