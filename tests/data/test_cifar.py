"""CIFAR comes from a server on this machine: a tiny archive in the published layout, with checksums of its own."""

import hashlib
import io
import pickle
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from torchvision import datasets

from headstart.data import cifar
from headstart.data.sources import load_images
from headstart.errors import DataError, DataUnavailableError

CLASSES = [f"class {index}" for index in range(10)]


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves a folder without writing to the terminal."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def batch(seed: int) -> dict[str, object]:
    data = np.random.default_rng(seed).integers(0, 256, (20, 3072), dtype=np.uint8)
    return {"data": data, "labels": list(range(10)) * 2}


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Publish a tiny CIFAR-10 on 127.0.0.1; yields the address of the archive."""
    names = [*(f"data_batch_{index}" for index in range(1, 6)), "test_batch"]
    contents = {name: pickle.dumps(batch(seed)) for seed, name in enumerate(names)}
    contents["batches.meta"] = pickle.dumps({"label_names": CLASSES})
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    folder = tmp_path / "published"
    folder.mkdir()
    (folder / "cifar-10-python.tar.gz").write_bytes(buffer.getvalue())

    def md5(content: bytes) -> str:
        return hashlib.md5(content, usedforsecurity=False).hexdigest()

    reader = datasets.CIFAR10
    monkeypatch.setattr(reader, "tgz_md5", md5(buffer.getvalue()))
    monkeypatch.setattr(reader, "train_list", [[name, md5(contents[name])] for name in names[:5]])
    monkeypatch.setattr(reader, "test_list", [[name, md5(contents[name])] for name in names[5:]])
    meta = {"filename": "batches.meta", "key": "label_names", "md5": md5(contents["batches.meta"])}
    monkeypatch.setattr(reader, "meta", meta)
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/cifar-10-python.tar.gz"
        sha256 = hashlib.sha256(buffer.getvalue()).hexdigest()
        monkeypatch.setitem(cifar.ARCHIVES, "cifar10", replace(cifar.ARCHIVES["cifar10"], url=url, sha256=sha256))
        yield url
        server.shutdown()
        thread.join()


def go_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = replace(cifar.ARCHIVES["cifar10"], url="http://127.0.0.1:9/cifar-10-python.tar.gz")
    monkeypatch.setitem(cifar.ARCHIVES, "cifar10", nowhere)


def test_downloaded_once(published: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    images = load_images("cifar10", progress=lambda done, total: seen.append((done, total)))
    assert images.images.shape == (120, 32, 32, 3)
    expected = np.concatenate([np.asarray(batch(seed)["data"]) for seed in range(6)])
    assert np.array_equal(images.images, expected.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    assert images.labels.tolist() == list(range(10)) * 12
    assert images.class_names == tuple(CLASSES)
    assert images.official_part is not None
    assert images.official_part.tolist() == [0] * 100 + [2] * 20
    assert (images.name, images.source, images.mirror_safe) == ("cifar10", "cifar10", True)
    assert seen[-1][0] == seen[-1][1] > 0
    go_offline(monkeypatch)
    monkeypatch.setattr(datasets, "CIFAR10", None)
    again = load_images("cifar10", download=False)
    assert again.fingerprint == images.fingerprint
    assert isinstance(again.images, np.memmap)


def test_offline_says_the_three_ways_out(published: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_offline(monkeypatch)
    path = cache / "downloads" / "cifar-10-python.tar.gz"
    for download, reason in ((True, "cannot be reached"), (False, "downloading was not allowed")):
        with pytest.raises(DataUnavailableError) as caught:
            load_images("cifar10", download=download)
        message = str(caught.value)
        for words in (reason, f"put the file at {path}", "name a folder", "use `digits`"):
            assert words in message
        assert caught.value.exit_code == 3
    assert not path.exists()


def test_the_first_way_out_works(published: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_offline(monkeypatch)
    (cache / "downloads").mkdir(parents=True)
    archive = tmp_path / "published" / "cifar-10-python.tar.gz"
    (cache / "downloads" / archive.name).write_bytes(archive.read_bytes())
    assert len(load_images("cifar10", download=False).labels) == 120


def test_a_copy_that_torchvision_unpacked_before(
    published: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_offline(monkeypatch)
    monkeypatch.chdir(tmp_path)
    with tarfile.open(tmp_path / "published" / "cifar-10-python.tar.gz") as archive:
        archive.extractall(tmp_path / "data", filter="data")
    assert len(load_images("cifar10", download=False).labels) == 120
    assert not (cache / "downloads").exists()


def test_a_file_that_is_not_the_published_one(published: str, tmp_path: Path, cache: Path) -> None:
    (cache / "downloads").mkdir(parents=True)
    (cache / "downloads" / "cifar-10-python.tar.gz").write_bytes(b"something else")
    with pytest.raises(DataError, match=r"is not the published CIFAR-10: expected SHA-256"):
        load_images("cifar10")


def test_a_download_that_is_not_the_published_one(published: str, tmp_path: Path, cache: Path) -> None:
    (tmp_path / "published" / "cifar-10-python.tar.gz").write_bytes(b"<html>please log in</html>")
    with pytest.raises(DataUnavailableError, match="what came is not CIFAR-10"):
        load_images("cifar10")
    assert not (cache / "downloads" / "cifar-10-python.tar.gz").exists()


def test_a_missing_page(published: str, tmp_path: Path) -> None:
    (tmp_path / "published" / "cifar-10-python.tar.gz").unlink()
    with pytest.raises(DataUnavailableError, match="cannot be reached"):
        load_images("cifar10")


def test_a_damaged_copy_is_unpacked_again(published: str, cache: Path) -> None:
    first = load_images("cifar10").fingerprint
    damaged = cache / "downloads" / "cifar-10-batches-py" / "data_batch_2"
    damaged.write_bytes(damaged.read_bytes()[:100])
    assert load_images("cifar10", download=False).fingerprint == first


def test_published_checksums_are_the_ones_torchvision_knows() -> None:
    for name, archive in cifar.ARCHIVES.items():
        reader = getattr(datasets, archive.reader)
        assert (reader.url, reader.filename, reader.base_folder) == (archive.url, archive.filename, archive.folder), (
            name
        )
