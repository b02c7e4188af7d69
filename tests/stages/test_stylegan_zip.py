"""StyleGAN data sets in and out: what goes out comes in again as it was, and their own layout is kept."""

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.refresh import SOURCE_LOCK, refresh
from pipelines.stylegan_zip import labels_of, main, write_stylegan_zip
from stages.archives import read_members
from stages.catalogue import read_catalogue
from stages.dataset import ImageDataset
from stages.download.run import run
from stages.errors import InputError
from stages.settings import load_settings
from tests.stages.archive_files import as_zip, picture

RAW = Path("data/raw")
IMAGES = Path("data/images")


def select(edit_params, path: str) -> None:
    edit_params(**{"data.source": "stylegan", "data.stylegan": {"path": path, "licence": "MIT"}})


def test_out_and_in_again_is_the_same(workspace, edit_params):
    assert write_stylegan_zip(IMAGES, Path("out.zip")) == len(ImageDataset(IMAGES))
    before = ImageDataset(IMAGES)
    select(edit_params, "out.zip")
    assert refresh(load_settings()) == [SOURCE_LOCK]
    run(load_settings().data, SOURCE_LOCK, RAW)
    pictures = read_catalogue(RAW)
    found = read_members(RAW / "out.zip", [picture.member for picture in pictures])
    pixels = [np.asarray(Image.open(io.BytesIO(data))) for _, data in found]
    assert (np.stack(pixels) == before.pixels).all()
    assert [picture.class_name for picture in pictures] == [row["class_name"] for row in before.rows]


def test_in_and_out_again_is_the_same(empty_workspace, run_stage, edit_params):
    """Pictures that need no resampling leave byte for byte as pixels, with their labels."""
    names = [f"00000/img{number:08d}.png" for number in range(24)]
    numbers = {name: position % 3 for position, name in enumerate(names)}
    rng = np.random.default_rng(0)
    pixels = {name: rng.integers(0, 256, (16, 16, 3), np.uint8) for name in names}
    with zipfile.ZipFile("in.zip", "w") as archive:
        for name in names:
            stream = io.BytesIO()
            Image.fromarray(pixels[name]).save(stream, "PNG")
            archive.writestr(name, stream.getvalue())
        archive.writestr("dataset.json", json.dumps({"labels": [[name, numbers[name]] for name in names]}))
    select(edit_params, "in.zip")
    edit_params(**{"align.mode": "none", "normalize.resolution": 16})
    refresh(load_settings())
    for name in ("download", "align", "normalize"):
        done = run_stage(name)
        assert done.returncode == 0, done.stdout + done.stderr
    write_stylegan_zip(IMAGES, Path("out.zip"))
    with zipfile.ZipFile("out.zip") as archive:
        labels = json.loads(archive.read("dataset.json"))["labels"]
        out = [(np.asarray(Image.open(io.BytesIO(archive.read(n)))).tobytes(), label) for n, label in labels]
    assert sorted(out) == sorted((pixels[name].tobytes(), numbers[name]) for name in names)


def test_the_zip_has_the_layout_that_stylegan_reads(workspace):
    write_stylegan_zip(IMAGES, Path("a.zip"), "train")
    write_stylegan_zip(IMAGES, Path("b.zip"), "train")
    assert Path("a.zip").read_bytes() == Path("b.zip").read_bytes()
    rows = ImageDataset(IMAGES, "train").rows
    with zipfile.ZipFile("a.zip") as archive:
        infos = archive.infolist()
        labels = json.loads(archive.read("dataset.json"))["labels"]
    assert {info.compress_type for info in infos} == {zipfile.ZIP_STORED}
    assert [info.filename for info in infos[:2]] == ["00000/img00000000.png", "00000/img00000001.png"]
    assert labels == [[info.filename, row["label"]] for info, row in zip(infos, rows, strict=False)]


def test_the_command_says_what_it_wrote_and_refuses_what_it_cannot(workspace, monkeypatch, capsys):
    def call(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["stylegan_zip", *arguments])
        return main()

    assert call("--out", "all.zip", "--split", "holdout") == 0
    assert f"{len(ImageDataset(IMAGES, 'holdout'))} pictures in all.zip" in capsys.readouterr().out
    Path("folder.zip").mkdir()
    for out, words in (
        ("all.tar", "names that end in .zip"),
        ("nowhere/all.zip", "whose folder does not exist"),
        ("folder.zip", "which is a folder"),
    ):
        assert call("--out", out) == 2
        assert words in capsys.readouterr().err
    (IMAGES / "index.parquet").unlink()
    assert call("--out", "other.zip") == 2
    assert "stages.normalize" in capsys.readouterr().err
    assert sorted(path.name for path in Path.cwd().glob("*.zip")) == ["all.zip", "folder.zip"]


def test_pictures_of_which_some_have_no_class_are_refused():
    rows = [{"key": "a", "label": 0}, {"key": "b", "label": -1}]
    with pytest.raises(InputError, match="1 of 2 pictures have no class, such as b"):
        labels_of(rows, ["x"], None)
    assert json.loads(labels_of(rows[1:], [], None))["labels"] is None
    with pytest.raises(InputError, match="no picture of split train"):
        labels_of([], [], "train")


def test_classes_without_names_sort_like_their_numbers(empty_workspace, edit_params):
    names = [f"{number}.png" for number in range(12)]
    labels = [[name, number] for number, name in enumerate(names)]
    members = {name: picture(name) for name in names} | {"dataset.json": json.dumps({"labels": labels}).encode()}
    Path("set.zip").write_bytes(as_zip(members))
    select(edit_params, "set.zip")
    refresh(load_settings())
    run(load_settings().data, SOURCE_LOCK, RAW)
    assert {picture.key: picture.class_name for picture in read_catalogue(RAW)}["2.png"] == "02"
    asked = SOURCE_LOCK.read_bytes()
    Path("set.zip").write_bytes(as_zip(members | {"dataset.json": b'{"labels": null}'}))
    assert refresh(load_settings()) == [SOURCE_LOCK]
    assert SOURCE_LOCK.read_bytes() != asked
    run(load_settings().data, SOURCE_LOCK, RAW)
    assert {picture.class_name for picture in read_catalogue(RAW)} == {""}


def test_help_is_quick():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "pipelines.stylegan_zip", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "torch" not in done.stderr.replace("torchvision_s", "")
