"""What a device computes with: chosen by its type, tried on the CPU."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from headstart.models.network import NetworkSpec, build_network
from headstart.records import Preprocessing, Recipe
from headstart.training.arithmetic import (
    Arithmetic,
    arithmetic_of,
    choose_arithmetic,
    full_precision,
    threads_for,
    torch_threads,
)
from headstart.training.batches import ImageBatches
from headstart.training.callbacks import Callback
from headstart.training.engine import DivergedError, Fitted, Training, make_optimizer, train_network

CPU = torch.device("cpu")
RECIPE = Recipe(
    name="small", kind="scratch", augmentation="shift", epochs=2, batch_size=16, optimizer="adamw", learning_rate=3e-3
)


@pytest.mark.parametrize("bfloat16", [True, False])
@pytest.mark.parametrize(("device_type", "fused"), [("cpu", True), ("mps", None)])
def test_other_devices_compute_in_float32_and_are_read_at_once(
    device_type: str, fused: bool | None, bfloat16: bool
) -> None:
    chosen = choose_arithmetic(device_type, bfloat16)
    assert (chosen.dtype, chosen.fused, chosen.read_every) == (torch.float32, fused, 1)


def test_cuda_takes_bfloat16_where_it_has_it() -> None:
    assert choose_arithmetic("cuda", bfloat16=True).dtype == torch.bfloat16
    assert choose_arithmetic("cuda", bfloat16=False).dtype == torch.float32
    for bfloat16 in (True, False):
        chosen = choose_arithmetic("cuda", bfloat16)
        assert chosen.fused is True
        assert chosen.read_every > 1


def test_this_machines_cpu() -> None:
    assert arithmetic_of(CPU) == choose_arithmetic("cpu", bfloat16=True)


def test_bfloat16_multiplies_eight_bits_and_leaves_weights_and_loss_alone() -> None:
    rng = np.random.default_rng(0)
    rows, weight = (torch.from_numpy(rng.normal(size=shape).astype(np.float32)) for shape in ((32, 64), (10, 64)))
    layer = nn.Linear(64, 10, bias=False)
    with torch.no_grad():
        layer.weight.copy_(weight)
    with Arithmetic("cpu", torch.bfloat16, None, 1).mixed():
        outputs = layer(rows)
    assert outputs.dtype == torch.bfloat16
    # By hand: both factors rounded to 8 bits, exact products, their sum rounded to 8 bits.
    rounded = rows.bfloat16().double() @ weight.bfloat16().double().T
    assert torch.allclose(outputs.double(), rounded, rtol=2**-8, atol=1e-3)
    assert not torch.allclose(outputs.double(), rows.double() @ weight.double().T, rtol=1e-4, atol=1e-4)
    loss = nn.functional.cross_entropy(outputs.float(), torch.arange(32) % 10)
    loss.backward()  # type: ignore[no-untyped-call]
    assert layer.weight.grad is not None
    assert {loss.dtype, layer.weight.dtype, layer.weight.grad.dtype} == {torch.float32}


def test_float32_enters_no_context() -> None:
    with Arithmetic("cpu", torch.float32, None, 1).mixed():
        assert not torch.is_autocast_enabled("cpu")


def test_full_precision_is_put_back() -> None:
    before = torch.backends.cudnn.allow_tf32
    with full_precision():
        assert not torch.backends.cudnn.allow_tf32
        assert torch.backends.cudnn.deterministic
    assert torch.backends.cudnn.allow_tf32 == before


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_a_fused_optimizer_makes_the_same_steps(name: Any) -> None:
    recipe, results = RECIPE.with_changes(optimizer=name, weight_decay=0.01), []
    for fused in (None, True):
        network = build_network(NetworkSpec("cnn", 10, 8, width=8), 0).to(memory_format=torch.channels_last).eval()
        optimizer = make_optimizer(network, recipe, fused)
        assert {group["fused"] for group in optimizer.param_groups} == {fused}
        for step in range(3):
            optimizer.zero_grad()
            network(torch.sin(torch.arange(4 * 3 * 64) + step).view(4, 3, 8, 8)).square().mean().backward()
            optimizer.step()
        results.append(torch.cat([parameter.detach().flatten() for parameter in network.parameters()]))
    assert torch.allclose(results[0], results[1], rtol=1e-4, atol=1e-6)


def test_muon_has_no_fused_kernel() -> None:
    network = build_network(NetworkSpec("cnn", 10, 8, width=8), 0)
    optimizer = make_optimizer(network, RECIPE.with_changes(optimizer="muon"), True)
    assert all("fused" not in group for group in optimizer.param_groups)


def _train(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    arithmetic: Arithmetic,
    recipe: Recipe = RECIPE,
    callbacks: tuple[Callback, ...] = (),
) -> tuple[list[bytes], Fitted]:
    monkeypatch.setattr("headstart.training.engine.arithmetic_of", lambda _: arithmetic)
    data = load_digits()
    images = np.repeat((data.images * 15).astype(np.uint8)[..., None], 3, axis=3)
    labels, preprocessing = data.target.astype(np.int64), Preprocessing(8, mean=(0.3,) * 3, std=(0.4,) * 3)
    train = ImageBatches(images, labels, np.arange(300), preprocessing, recipe.augmentation)
    val = ImageBatches(images, labels, np.arange(1500, 1700), preprocessing)
    network = build_network(NetworkSpec("cnn", 10, 8, width=8, dropout=0.2), 0)
    fitted = train_network(
        network, train, val, recipe, 0, device=CPU, checkpoint=folder / "resume", callbacks=callbacks
    )
    return [value.numpy().tobytes() for value in network.state_dict().values()], fitted


@pytest.mark.parametrize("read_every", [4, 1000])
def test_how_often_the_loss_is_read_changes_no_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_every: int
) -> None:
    class Shown(Callback):
        def __init__(self) -> None:
            self.running: list[tuple[float, float]] = []

        def on_batch_end(self, training: Training) -> None:
            self.running.append((training.running.loss, training.running.accuracy))

    often, seldom = Shown(), Shown()
    weights, fitted = _train(
        tmp_path / "often", monkeypatch, Arithmetic("cpu", torch.float32, None, 1), callbacks=(often,)
    )
    again, refitted = _train(
        tmp_path / "seldom", monkeypatch, Arithmetic("cpu", torch.float32, None, read_every), callbacks=(seldom,)
    )
    assert weights == again
    assert [record.train_loss for record in fitted.history] == [record.train_loss for record in refitted.history]
    assert len(set(often.running)) == 38  # two epochs of 19 batches
    # What is shown in between is the last reading, and every epoch begins and ends with one.
    assert set(seldom.running) < set(often.running)
    assert [seldom.running[at] for at in (0, 18, 19, 37)] == [often.running[at] for at in (0, 18, 19, 37)]


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("read_every", [2, 7, 1000])
def test_divergence_is_found_late_but_named_by_its_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_every: int
) -> None:
    recipe, messages = RECIPE.with_changes(optimizer="sgd", learning_rate=1e18, schedule="constant"), []
    for every in (1, read_every):
        with pytest.raises(DivergedError, match=r"in epoch 1, batch \d+\. Lower the learning rate") as caught:
            _train(tmp_path / str(every), monkeypatch, Arithmetic("cpu", torch.float32, None, every), recipe)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert not list(tmp_path.rglob("resume"))  # nothing of a diverged epoch is kept


def test_a_training_in_bfloat16_learns_as_one_in_float32_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = RECIPE.with_changes(epochs=12, schedule="one-cycle")
    exact, fitted = _train(tmp_path / "exact", monkeypatch, Arithmetic("cpu", torch.float32, None, 1), recipe)
    rounded, refitted = _train(tmp_path / "rounded", monkeypatch, Arithmetic("cpu", torch.bfloat16, None, 50), recipe)
    assert exact != rounded
    assert refitted.history[0].train_loss == pytest.approx(fitted.history[0].train_loss, rel=0.05)
    assert min(fitted.history[-1].val_accuracy, refitted.history[-1].val_accuracy) > 0.75


def test_a_small_step_runs_on_one_thread_and_the_others_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert threads_for(64 * 1280 * 10) == 1
    assert threads_for(256 * 1280 * 1000) == 4
    monkeypatch.undo()
    before = torch.get_num_threads()
    with torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
