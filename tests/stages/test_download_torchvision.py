"""The torchvision source: synthetic files of four formats behind a loopback https server, parsed by torchvision."""

import bz2
import gzip
import io
import json
import pickle
from hashlib import md5
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.refresh import SOURCE_LOCK, refresh
from stages.archives import read_members
from stages.catalogue import read_catalogue
from stages.download import fetching
from stages.download.run import run
from stages.download.torchvision_sets import SETS, files_of
from stages.errors import InputError
from stages.settings import load_settings
from stages.settings.pictures import SPLITS_OF_DATASET
from stages.storage import sha256_bytes, sha256_tree
from tests.stages.archive_files import as_tar
from tests.stages.https_server import https_server

RAW = Path("data/raw")
RANDOM = np.random.default_rng(0)
CIFAR_PIXELS = RANDOM.integers(0, 256, (12, 3, 32, 32), np.uint8)
DIGITS = RANDOM.integers(0, 256, (6, 28, 28), np.uint8)
USPS_PIXELS = RANDOM.integers(0, 256, (4, 16, 16))


@pytest.fixture
def server(empty_workspace: Path, tmp_path_factory, monkeypatch):
    outside = tmp_path_factory.mktemp("server")
    monkeypatch.setenv("IMAGE_FOUNDRY_CACHE", str(empty_workspace / "cache"))
    monkeypatch.setattr(fetching, "PAUSES", ())
    with https_server(outside) as (found, trusted):
        monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
        yield found


@pytest.fixture
def select(edit_params):
    def edit(dataset: str, split: str = "train") -> None:
        edit_params(**{"data.source": "torchvision", "data.torchvision": {"dataset": dataset, "split": split}})

    return edit


def digest(data: bytes) -> str:
    return md5(data, usedforsecurity=False).hexdigest()


@pytest.fixture
def cifar(server, monkeypatch, select):
    """CIFAR10 of two pictures a batch, known to torchvision by the sums of what the server has."""
    from torchvision.datasets import CIFAR10

    flat = CIFAR_PIXELS.reshape(6, 2, -1)
    names = [name for name, _ in [*CIFAR10.train_list, *CIFAR10.test_list]]
    members = {n: pickle.dumps({"data": flat[i], "labels": [i, i + 1]}) for i, n in enumerate(names)}
    members["batches.meta"] = pickle.dumps({"label_names": [f"class {letter}" for letter in "abcdefgh"]})
    data = as_tar({f"{CIFAR10.base_folder}/{n}": content for n, content in members.items()}, "w:gz")
    monkeypatch.setattr(CIFAR10, "train_list", [[n, digest(members[n])] for n in names[:5]])
    monkeypatch.setattr(CIFAR10, "test_list", [[n, digest(members[n])] for n in names[5:]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": digest(members["batches.meta"])})
    monkeypatch.setattr(CIFAR10, "url", server.put("cifar-10-python.tar.gz", data))
    monkeypatch.setattr(CIFAR10, "tgz_md5", digest(data))
    select("CIFAR10")
    return data


def idx(values: np.ndarray) -> bytes:
    head = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    return gzip.compress(head + values.tobytes(), mtime=0)


@pytest.fixture
def mnist(server, monkeypatch, select):
    from torchvision.datasets import MNIST

    labels = np.array([3, 1, 4, 1, 5, 9], np.uint8)
    contents = [idx(DIGITS), idx(labels), idx(DIGITS[:2]), idx(labels[:2])]
    names = [name for name, _ in MNIST.resources]
    for name, data in zip(names, contents, strict=True):
        server.put(f"mnist/{name}", data)
    monkeypatch.setattr(MNIST, "mirrors", [f"{server.address}/mnist/".replace("https", "http")])
    monkeypatch.setattr(MNIST, "resources", [(n, digest(data)) for n, data in zip(names, contents, strict=True)])
    select("MNIST")


def fetched_pixels() -> list[np.ndarray]:
    found = read_members(RAW / "pictures.tar", [p.member for p in read_catalogue(RAW)])
    return [np.asarray(Image.open(io.BytesIO(data))) for _, data in found]


def fetch_all() -> None:
    refresh(load_settings())
    run(load_settings().data, SOURCE_LOCK, RAW)


def test_cifar_arrives_without_loss_and_with_names(cifar):
    fetch_all()
    expected = CIFAR_PIXELS[:10].transpose(0, 2, 3, 1)
    assert (np.stack(fetched_pixels()) == expected).all()
    found = read_catalogue(RAW)
    assert [p.key for p in found][:2] == ["train/0.png", "train/1.png"]
    assert [p.class_name for p in found][:4] == ["class a", "class b", "class b", "class c"]
    assert (RAW / "cifar-10-python.tar.gz").read_bytes() == cifar
    assert json.loads(SOURCE_LOCK.read_text())["files"][0]["sha256"] == sha256_bytes(cifar)
    assert {path.name for path in RAW.iterdir()} == {
        "cifar-10-python.tar.gz",
        "pictures.tar",
        "catalogue.parquet",
        "origin.json",
    }


def test_the_other_split_and_equal_bytes(cifar, select):
    fetch_all()
    before = sha256_tree(RAW)
    run(load_settings().data, SOURCE_LOCK, RAW)
    assert sha256_tree(RAW) == before
    select("CIFAR10", "test")
    fetch_all()
    assert (np.stack(fetched_pixels()) == CIFAR_PIXELS[10:].transpose(0, 2, 3, 1)).all()


def test_mnist_arrives_over_https_though_its_address_is_http(mnist, server):
    fetch_all()
    assert (np.stack(fetched_pixels()) == DIGITS).all()
    assert [p.class_name for p in read_catalogue(RAW)][:3] == ["3 - three", "1 - one", "4 - four"]
    assert len(server.requests) == 4
    assert refresh(load_settings(), thorough=True) == []
    assert len(server.requests) == 4


def test_a_bare_file_and_a_compressed_one(server, monkeypatch, select):
    import scipy.io
    from torchvision.datasets import SVHN, USPS

    stream = io.BytesIO()
    pixels = RANDOM.integers(0, 256, (32, 32, 3, 5), np.uint8)
    scipy.io.savemat(stream, {"X": pixels, "y": np.array([[1], [2], [10], [4], [5]])})
    url = server.put("train_32x32.mat", stream.getvalue())
    entry = [url, "train_32x32.mat", digest(stream.getvalue())]
    monkeypatch.setattr(SVHN, "split_list", {"train": entry})
    select("SVHN")
    fetch_all()
    assert (np.stack(fetched_pixels()) == pixels.transpose(3, 0, 1, 2)).all()
    assert [p.class_name for p in read_catalogue(RAW)] == ["01", "02", "00", "04", "05"]
    lines = [
        f"{i + 1} " + " ".join(f"{j}:{v}" for j, v in enumerate(p.ravel())) for i, p in enumerate(USPS_PIXELS / 255)
    ]
    data = bz2.compress("\n".join(lines).encode())
    monkeypatch.setattr(USPS, "split_list", {"train": [server.put("usps.bz2", data), "usps.bz2", digest(data)]})
    select("USPS")
    fetch_all()
    assert len(fetched_pixels()) == 4


def test_a_folder_of_pictures_in_a_zip(server, monkeypatch, select):
    from stages.download import torchvision_sets
    from tests.stages.archive_files import as_zip, picture

    names = ["2750/River/River_1.jpg", "2750/River/River_2.jpg", "2750/Forest/Forest_1.jpg"]
    data = as_zip({name: picture(name) for name in [*names, "2750/../../River_3.jpg", "elsewhere/x.jpg"]})
    monkeypatch.setattr(torchvision_sets, "EUROSAT", (server.put("EuroSAT.zip", data), digest(data)))
    select("EuroSAT", "all")
    fetch_all()
    assert [p.class_name for p in read_catalogue(RAW)] == ["Forest", "River", "River"]


def test_bytes_of_another_md5_are_never_parsed(cifar, server, monkeypatch):
    """A pickle can run what it likes when it is read, so it must not be."""

    def forbidden(*arguments: object, **named: object) -> None:
        raise AssertionError("something was unpickled")

    monkeypatch.setattr(pickle, "load", forbidden)
    server.put("cifar-10-python.tar.gz", cifar[:-1] + b"\1")
    with pytest.raises(InputError, match="its publisher says"):
        refresh(load_settings())
    assert not list(Path("cache").rglob("*.tar.gz"))


def test_a_lock_cannot_bring_other_bytes_to_the_parser(cifar, monkeypatch):
    refresh(load_settings())
    evil = b"evil"
    path = fetching.cached(sha256_bytes(evil), "cifar-10-python.tar.gz")
    path.parent.mkdir(parents=True)
    path.write_bytes(evil)
    lock = json.loads(SOURCE_LOCK.read_text())
    lock["files"][0] |= {"sha256": sha256_bytes(evil), "bytes": len(evil)}
    SOURCE_LOCK.write_text(json.dumps(lock))
    with pytest.raises(InputError, match="its publisher says"):
        run(load_settings().data, SOURCE_LOCK, RAW)
    assert not RAW.exists()


def test_what_torchvision_refuses_is_one_line(cifar, server, monkeypatch):
    from torchvision.datasets import CIFAR10

    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": "0" * 32})
    refresh(load_settings())
    with pytest.raises(InputError, match=r"dataset is CIFAR10: torchvision cannot read its files: .*corrupted"):
        run(load_settings().data, SOURCE_LOCK, RAW)


@pytest.mark.parametrize(
    ("dataset", "split", "words"),
    [
        ("ImageNet", "train", "'ImageNet'; allowed: CIFAR10, CIFAR100"),
        ("MNIST", "extra", "allowed for MNIST: train, test"),
    ],
)
def test_unknown_names_list_the_allowed_ones(empty_workspace, select, dataset, split, words):
    select(dataset, split)
    with pytest.raises(InputError, match=words):
        load_settings()


def test_every_allowed_name_has_addresses_and_md5():
    assert set(SETS) == set(SPLITS_OF_DATASET)
    for dataset, splits in SPLITS_OF_DATASET.items():
        for split in splits:
            files = files_of(dataset, split)
            assert files
            assert all(address.startswith("https://") and len(md5) == 32 for address, md5 in files)
