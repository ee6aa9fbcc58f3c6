"""Weight files: the format, strict loading, and hashes."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from headstart.errors import WeightsError
from headstart.models.weights import (
    BUNDLED_WEIGHTS,
    UnusableFile,
    find_weights_file,
    hash_of_state,
    inspect_weight_files,
    load_strictly,
    path_by_name,
    read_weights_file,
    weight_files,
    weights_folders,
    write_weights_file,
)
from headstart.records import Preprocessing
from tests.models.factory import TINY, metadata, tiny_state, write_foreign_files, write_tiny_weights


def test_reads_what_the_metadata_says(tmp_path: Path) -> None:
    file = read_weights_file(write_tiny_weights(tmp_path, timm_kwargs='{"bn_eps": 0.001}'))
    assert file.architecture == TINY
    assert file.timm_arguments == {"bn_eps": 0.001}
    assert (file.input_size, file.mean, file.std) == (64, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    assert file.licence == "CC0-1.0"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mean": "0.5,0.5"}, "'mean' in its metadata is '0.5,0.5'; expected three numbers"),
        ({"std": "0.2,red,0.2"}, "'std' in its metadata is '0.2,red,0.2'; expected three numbers above 0"),
        ({"std": "0.2,0,0.2"}, "'std' in its metadata is '0.2,0,0.2'; expected three numbers above 0"),
        ({"mean": "0.5,nan,0.5"}, "'mean' in its metadata is '0.5,nan,0.5'; expected three numbers"),
        ({"interpolation": "lanczos"}, "'interpolation' in its metadata is 'lanczos'; expected nearest, bilinear or"),
        ({"timm_kwargs": "not json"}, "'timm_kwargs' in its metadata is 'not json'; expected a JSON object"),
        ({"timm_kwargs": "[]"}, "'timm_kwargs' in its metadata is '[]'; expected a JSON object"),
        ({"input_size": "large"}, "'input_size' in its metadata is 'large'; expected a side in pixels"),
        ({"input_size": "0"}, "'input_size' in its metadata is '0'; expected a side in pixels"),
    ],
)
def test_a_broken_field_is_named(tmp_path: Path, changes: dict[str, str], said: str) -> None:
    path = write_tiny_weights(tmp_path, **changes)
    with pytest.raises(WeightsError) as caught:
        read_weights_file(path)
    assert str(caught.value).startswith(f"{path}: {said}")
    assert "docs/weights.md" in str(caught.value)


@pytest.mark.parametrize("field", ["architecture", "input_size", "mean", "std"])
def test_a_missing_field_is_named(tmp_path: Path, field: str) -> None:
    facts = metadata()
    del facts[field]
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors", metadata=facts)
    with pytest.raises(WeightsError, match=f"its metadata has no '{field}'; expected"):
        read_weights_file(tmp_path / "x.safetensors")


def test_a_path_that_does_not_exist_is_not_called_unreadable(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no file .*mine\.safetensors\. `headstart backbones` lists") as caught:
        read_weights_file(tmp_path / "mine.safetensors")
    assert "Replace or remove" not in str(caught.value)


def test_a_file_that_is_not_safetensors_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.safetensors"
    path.write_bytes(b"not a tensor")
    with pytest.raises(WeightsError, match=r"broken\.safetensors"):
        read_weights_file(path)


def test_found_by_architecture_and_by_file_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tiny_weights(tmp_path / "weights", name="mine")
    monkeypatch.setenv("HEADSTART_WEIGHTS", str(tmp_path / "weights"))
    for name in ("mine", TINY):
        found = find_weights_file(name, [tmp_path / "absent", tmp_path / "weights"])
        assert found is not None
        assert found.path == path
    assert find_weights_file("other", [tmp_path / "weights"]) is None
    assert [file.path for file in weight_files() if file.path.parent != BUNDLED_WEIGHTS] == [path]


def test_a_files_name_comes_before_an_architecture_in_whichever_folder(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    better, named = write_tiny_weights(first, "better"), write_tiny_weights(first)
    assert path_by_name(TINY, [first]) == named
    named = named.rename(write_tiny_weights(second))
    assert path_by_name(TINY, [first, second]) == named
    assert path_by_name("better", [second, first]) == better
    named.unlink()
    assert path_by_name(TINY, [first, second]) == better


def test_a_folder_is_searched_once_however_it_is_spelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tiny_weights(tmp_path)
    monkeypatch.setenv("HEADSTART_WEIGHTS", str(tmp_path / "x" / ".."))
    (tmp_path / "x").mkdir()
    assert [file.path for file in weight_files(tmp_path) if file.path.parent != BUNDLED_WEIGHTS] == [path]
    assert weights_folders(BUNDLED_WEIGHTS)[0] == BUNDLED_WEIGHTS
    assert weights_folders(BUNDLED_WEIGHTS).count(BUNDLED_WEIGHTS) == 1


def test_files_that_do_not_fit_are_told_with_the_reason_and_disturb_nothing(tmp_path: Path) -> None:
    reasons = write_foreign_files(tmp_path)
    mine = write_tiny_weights(tmp_path, "zz")
    unusable = {
        file.path.stem: file.reason for file in inspect_weight_files(tmp_path) if isinstance(file, UnusableFile)
    }
    assert unusable.keys() == reasons.keys()
    for name, said in reasons.items():
        assert said in unusable[name]
        assert str(tmp_path / f"{name}.safetensors") in unusable[name]
    assert [file.path for file in weight_files(tmp_path) if file.path.parent != BUNDLED_WEIGHTS] == [mine]
    found = find_weights_file(TINY, weights_folders(tmp_path))  # "argued" and "fetched" say that they are of it
    assert found is not None
    assert found.path == mine
    assert find_weights_file("nosuchnet", [tmp_path]) is None


def test_a_file_that_does_not_fit_is_an_error_where_it_is_asked_for(tmp_path: Path) -> None:
    write_foreign_files(tmp_path)
    write_tiny_weights(tmp_path, "usable")
    with pytest.raises(WeightsError, match=r"torn\.safetensors is not a readable safetensors file"):
        find_weights_file("torn", [tmp_path])


def test_missing_unexpected_and_misshapen_keys_are_named() -> None:
    state = tiny_state()
    network = timm.create_model(TINY, num_classes=0)
    del state["conv_stem.weight"]
    state["surprise"] = torch.zeros(1)
    state["bn1.bias"] = torch.zeros(3)
    with pytest.raises(WeightsError) as caught:
        load_strictly(network, state, "file.safetensors")
    message = str(caught.value)
    for part in (
        "file.safetensors",
        "missing keys (conv_stem.weight)",
        "unexpected keys (surprise)",
        "bn1.bias: expected",
    ):
        assert part in message


def test_batch_counters_may_be_missing() -> None:
    state = {name: value for name, value in tiny_state().items() if not name.endswith("num_batches_tracked")}
    network = timm.create_model(TINY, num_classes=0)
    load_strictly(network, state, "file")
    assert torch.equal(network.state_dict()["conv_stem.weight"], state["conv_stem.weight"])


def test_the_hash_sees_names_and_bytes_but_not_counters() -> None:
    state = tiny_state()
    changed = dict(state) | {"bn1.bias": state["bn1.bias"] + 1e-6}
    counted = dict(state) | {"bn1.num_batches_tracked": torch.tensor(7)}
    assert hash_of_state(state) == hash_of_state(dict(reversed(state.items())))
    assert hash_of_state(state) == hash_of_state(counted)
    assert hash_of_state(state) != hash_of_state(changed)
    assert hash_of_state(tiny_state(1)) != hash_of_state(state)


def test_a_written_file_reads_back_with_kernels_in_half_precision(tmp_path: Path) -> None:
    state = tiny_state()
    contract = Preprocessing(48, "bicubic", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    path = tmp_path / "made.safetensors"
    write_weights_file(path, TINY, state, contract, {"license": "CC0-1.0", "seed": "3"})
    file = read_weights_file(path)
    assert (file.architecture, file.input_size, file.interpolation) == (TINY, 48, "bicubic")
    assert (file.mean, file.std) == (contract.mean, contract.std)
    assert (file.licence, file.metadata["seed"]) == ("CC0-1.0", "3")
    written = load_file(path)
    network = timm.create_model(TINY, num_classes=0)
    load_strictly(network, written, str(path))
    for name, value in written.items():
        assert value.dtype == (torch.float16 if value.ndim > 1 else torch.float32)
        assert torch.allclose(value.float(), state[name], rtol=1e-3, atol=1e-6)


def test_the_same_weights_give_the_same_bytes(tmp_path: Path) -> None:
    facts = {f"field {number}": "ñ" * number for number in range(20)}
    for name in ("a", "b", "c"):
        write_weights_file(tmp_path / name, TINY, tiny_state(), Preprocessing(48), facts)
    assert len({(tmp_path / name).read_bytes() for name in ("a", "b", "c")}) == 1
    assert read_weights_file(tmp_path / "a").metadata["field 3"] == "ñññ"
