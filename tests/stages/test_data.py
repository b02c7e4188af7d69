"""download, align, normalize and augment as processes on real pictures, and what they refuse."""

import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from stages.dataset import ImageDataset, to_uint8
from stages.download.run import run as run_download
from stages.errors import InputError
from stages.settings import load_settings
from stages.storage import sha256_tree
from tests.conftest import PICTURES, write_locks

DATA_STAGES = ("download", "align", "normalize")


@pytest.fixture
def own_pictures(empty_workspace: Path, edit_params) -> Path:
    """A copy of the pictures that a test may spoil, as the workspace's source."""
    folder = empty_workspace / "own"
    shutil.copytree(PICTURES, folder)
    edit_params(**{"data.folder.path": "own"})
    write_locks(empty_workspace)
    return folder


def run_all(run_stage, stages=DATA_STAGES):
    for name in stages:
        done = run_stage(name)
        assert done.returncode == 0, done.stdout + done.stderr


def assert_refused(done, *words: str, code: int = 2):
    """One line on stderr that names what is wrong, and the documented exit code."""
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert done.returncode == code, done.stdout + done.stderr
    assert len(lines) == 1, done.stderr
    for word in words:
        assert word in lines[0]


def test_the_dataset_keeps_its_contract(workspace):
    dataset = ImageDataset(Path("data/images"))
    rows = dataset.rows
    assert len(dataset) == 68 - len(json.loads(Path("data/images/rejects.json").read_text()))
    assert dataset.pixels.dtype == np.uint8
    assert dataset.pixels.shape == (len(rows), 16, 16, 3)
    assert {row["class_name"] for row in rows} == {"happy", "sad", "animal"}
    assert all(row["caption"] for row in rows)
    assert [dataset.description["class_names"][row["label"]] for row in rows] == [row["class_name"] for row in rows]
    pictures = dataset.pictures(slice(0, 8))
    assert pictures.shape == (8, 3, 16, 16)
    assert -1 <= pictures.min() < -0.5 < 0.9 < pictures.max() <= 1
    assert (to_uint8(pictures.transpose(0, 2, 3, 1)) == dataset.pixels[:8]).all()
    split = dataset.description["splits"]
    assert split["train"] + split["holdout"] == len(rows)
    assert min(split.values()) > 10


def test_the_pictures_are_the_ones_that_were_put_in(workspace):
    """A picture of the index equals an independent reduction of its file within resampling's ringing."""
    dataset = ImageDataset(Path("data/images"))
    crops = Path("data/crops/preview.png")
    assert Image.open(crops).size[0] > 1000
    row = next(position for position, row in enumerate(dataset.rows) if row["key"].endswith("1f600.webp"))
    source = Image.open(PICTURES / "happy" / "1f600.webp").convert("RGBA")
    white = Image.new("RGBA", source.size, "white")
    flat = Image.alpha_composite(white, source).convert("RGB")
    expected = np.asarray(flat.resize((16, 16), Image.Resampling.BOX)).astype(int)
    assert np.abs(expected - dataset.pixels[row].astype(int)).mean() < 12


@pytest.mark.parametrize("workers", ["1", "2"])
def test_equal_pictures_give_equal_bytes(workspace, run_stage, edit_params, workers):
    before = {name: sha256_tree(Path(f"data/{name}")) for name in ("raw", "crops", "images", "augment")}
    edit_params(**{"normalize.workers": int(workers)})
    run_all(run_stage, (*DATA_STAGES, "augment"))
    assert {name: sha256_tree(Path(f"data/{name}")) for name in before} == before


def test_new_pictures_leave_splits_and_rows_of_others_as_they_were(own_pictures, run_stage, empty_workspace):
    removed = sorted((own_pictures / "sad").iterdir())[:6]
    kept = {path.name: path.read_bytes() for path in removed}
    metadata = (own_pictures / "metadata.jsonl").read_text()
    shorter = [line for line in metadata.splitlines() if not any(name in line for name in kept)]
    (own_pictures / "metadata.jsonl").write_text("\n".join(shorter))
    for path in removed:
        path.unlink()
    write_locks(empty_workspace)
    run_all(run_stage)
    before = {row["key"]: row for row in ImageDataset(Path("data/images")).rows}
    for name, data in kept.items():
        (own_pictures / "sad" / name).write_bytes(data)
    (own_pictures / "metadata.jsonl").write_text(metadata)
    write_locks(empty_workspace)
    run_all(run_stage)
    after = {row["key"]: row for row in ImageDataset(Path("data/images")).rows}
    assert len(after) == len(before) + 6
    for key, row in before.items():
        assert (after[key]["split"], after[key]["shard"]) == (row["split"], row["shard"])


@pytest.mark.parametrize("mode", ["none", "center", "content"])
def test_align_modes_choose_the_documented_square(own_pictures, run_stage, edit_params, empty_workspace, mode):
    from stages.crops import read_crops

    wide = Image.new("RGB", (100, 40), "white")
    wide.paste("navy", (60, 10, 80, 20))
    wide.save(own_pictures / "wide.png")
    edit_params(**{"align.mode": mode, "align.margin": 0.0})
    write_locks(empty_workspace)
    run_all(run_stage, ("download", "align"))
    left, top, right, bottom = (read_crops(Path("data/crops"))["wide.png"][0].quad[i] for i in (0, 1, 4, 5))
    expected = {"none": (0, -30, 100, 70), "center": (30, 0, 70, 40), "content": (60, 5, 80, 25)}
    assert (left, top, right, bottom) == expected[mode]


def test_unreadable_pictures_are_set_aside_with_their_reason(own_pictures, run_stage, edit_params, empty_workspace):
    (own_pictures / "sad" / "text.png").write_text("not a picture")
    truncated = (own_pictures / "happy" / "1f600.webp").read_bytes()[:700]
    (own_pictures / "happy" / "cut.webp").write_bytes(truncated)
    Image.new("RGB", (40, 40), "white").save(own_pictures / "sad" / "blank.png")
    write_locks(empty_workspace)
    run_all(run_stage)
    rejects = json.loads(Path("data/images/rejects.json").read_text())
    assert set(rejects) == {"sad/text.png", "happy/cut.webp", "sad/blank.png"}
    assert rejects["sad/text.png"] == "not a picture of a known format"
    assert "damaged" in rejects["happy/cut.webp"]
    assert "blank" in rejects["sad/blank.png"]
    edit_params(**{"data.max_reject_share": 0.02})
    assert_refused(run_stage("align"), "3 of", "max_reject_share 0.02", "sad/blank.png")


def test_a_changed_folder_is_noticed(own_pictures, run_stage):
    (own_pictures / "happy" / "1f600.webp").unlink()
    assert_refused(run_stage("download"), "source.lock.json", "files, sha256", "pipelines.refresh")
    assert not Path("data/raw").exists()


def test_a_folder_that_cannot_be_used_is_refused(empty_workspace, run_stage, edit_params):
    edit_params(**{"data.folder.path": "absent"})
    assert_refused(run_stage("download"), "data.folder.path", "absent", "not a folder")
    Path("hollow").mkdir()
    edit_params(**{"data.folder.path": "hollow"})
    assert_refused(run_stage("download"), "hollow", "no picture")


def test_metadata_that_names_an_absent_picture_is_refused(own_pictures, run_stage, empty_workspace):
    with (own_pictures / "metadata.jsonl").open("a") as stream:
        stream.write('{"file_name": "happy/absent.png", "text": "nobody"}\n')
    write_locks(empty_workspace)
    assert_refused(run_stage("download"), "happy/absent.png")


def test_captions_come_from_csv_too(own_pictures, run_stage, empty_workspace):
    (own_pictures / "metadata.jsonl").unlink()
    (own_pictures / "metadata.csv").write_text("file_name,caption\nhappy/1f600.webp,a grin\n")
    write_locks(empty_workspace)
    run_all(run_stage)
    captions = {row["key"]: row["caption"] for row in ImageDataset(Path("data/images")).rows}
    assert captions["happy/1f600.webp"] == "a grin"
    assert set(captions.values()) == {"", "a grin"}


def test_captions_of_sub_folders_are_relative_to_their_file(own_pictures, run_stage, empty_workspace):
    (own_pictures / "metadata.jsonl").unlink()
    (own_pictures / "sad" / "metadata.csv").write_text("file_name,text\n./1f622.webp,tears\n", encoding="utf-8-sig")
    (own_pictures / "happy" / "metadata.jsonl").write_text('{"file_name": "1f600.webp", "text": "a\u2028grin"}\n')
    write_locks(empty_workspace)
    pinned = json.loads(Path("data/source.lock.json").read_text())
    run_all(run_stage)
    rows = {row["key"]: row["caption"] for row in ImageDataset(Path("data/images")).rows if row["caption"]}
    assert rows == {"happy/1f600.webp": "a\u2028grin", "sad/1f622.webp": "tears"}
    (own_pictures / "happy" / "metadata.jsonl").write_text('{"file_name": "1f600.webp", "text": "a smile"}\n')
    write_locks(empty_workspace)
    assert json.loads(Path("data/source.lock.json").read_text())["sha256"] != pinned["sha256"]


GRIN = '{"file_name": "happy/1f600.webp", "text": "a grin"}\n'


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"metadata.csv": b"file_name,text\n"}, ("own holds both metadata.jsonl and metadata.csv",)),
        ({"happy/metadata.csv": b"file_name,text\n1f600.webp,again\n"}, ("row 1", "happy/1f600.webp appears twice")),
        ({"metadata.jsonl": (GRIN + GRIN).encode()}, ("row 2", "happy/1f600.webp appears twice")),
        ({"metadata.jsonl": "caf\u00e9".encode("latin-1")}, ("metadata.jsonl is not UTF-8", "byte 0xe9 at 3")),
        ({"metadata.jsonl": b'{"file_name": 7, "text": "x"}'}, ("row 1: needs file_name",)),
        ({"metadata.jsonl": b'{"file_name": "a", "text": "\\ud83d"}'}, ("row 1", "not Unicode text")),
        ({"metadata.jsonl": b"{"}, ("line 1: not JSON",)),
        ({"sad/metadata.csv": b"file_name,text\n../../secret.png,x\n"}, ("../secret.png", "no picture there")),
    ],
)
def test_metadata_that_cannot_be_used_is_refused(own_pictures, run_stage, empty_workspace, files, words):
    (own_pictures / "metadata.jsonl").write_text(GRIN)
    for name, data in files.items():
        (own_pictures / name).write_bytes(data)
    write_locks(empty_workspace)
    assert_refused(run_stage("download"), *words)
    assert not Path("data/raw").exists()


def test_a_file_name_that_is_not_utf_8_is_refused(own_pictures, run_stage):
    source = own_pictures / "happy" / "1f600.webp"
    try:
        shutil.copyfile(source, os.fsencode(own_pictures / "happy") + b"/caf\xe9.webp")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert_refused(run_stage("download"), r"own/happy/caf\xe9.webp: the file's name is not UTF-8")


@pytest.mark.parametrize("function", ["sha256_file", "read_bytes"])
def test_a_picture_that_may_not_be_read_is_named(own_pictures, monkeypatch, function):
    """The refusal is made here rather than by chmod, which does not bind root."""

    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    name = {"sha256_file": "stages.download.folder.sha256_file", "read_bytes": "pathlib.Path.read_bytes"}[function]
    monkeypatch.setattr(name, refuse)
    data = load_settings(Path("params.yaml")).data
    with pytest.raises(InputError, match=r"own/.*\.webp cannot be read: Permission denied"):
        run_download(data, Path("data/source.lock.json"), Path("data/raw"))
    assert not Path("data/raw").exists()


@pytest.mark.parametrize(
    ("torn", "name", "needed"),
    [
        ("data/raw/catalogue.parquet", "align", "download"),
        ("data/crops/crops.parquet", "normalize", "align"),
        ("data/images/index.parquet", "augment", "normalize"),
    ],
)
def test_a_torn_table_names_the_stage_that_makes_it(workspace, run_stage, torn, name, needed):
    whole = Path(torn).read_bytes()
    Path(torn).write_bytes(whole[:-20])
    assert_refused(run_stage(name), f"{torn} is damaged", f"run `python -m stages.{needed}`")
    pq.write_table(pa.table({"key": ["a"]}), torn)
    assert_refused(run_stage(name), f"{torn} has columns key, expected key, ", f"stages.{needed}")
    Path(torn).unlink()
    assert_refused(run_stage(name), f"{torn} does not exist", f"stages.{needed}")


@pytest.mark.parametrize("keep", [0, 60, -100])
def test_a_torn_shard_names_the_stage_that_makes_it(workspace, keep):
    shard = min(Path("data/images").glob("shard-*.npy"))
    shard.write_bytes(shard.read_bytes()[:keep])
    with pytest.raises(InputError, match=rf"{shard} is damaged .*stages.normalize"):
        _ = ImageDataset(Path("data/images")).pixels


def test_a_damaged_archive_names_the_stage_that_makes_it(workspace, run_stage):
    archive = Path("data/raw/pictures.tar")
    archive.write_bytes(archive.read_bytes()[:5000])
    assert_refused(run_stage("align"), "data/raw/pictures.tar is damaged", "stages.download")


@pytest.mark.parametrize(
    ("name", "needed"), [("align", "download"), ("normalize", "download"), ("augment", "normalize")]
)
def test_a_stage_before_its_input_names_the_one_to_run(empty_workspace, run_stage, name, needed):
    assert_refused(run_stage(name), f"stages.{needed}")


def test_a_source_other_than_the_pinned_one_is_refused(empty_workspace, run_stage, edit_params):
    edit_params(**{"data.source": "emoji"})
    assert_refused(run_stage("download"), "pins source folder", "selects emoji")


def test_a_policy_that_does_not_suit_the_data_is_refused(workspace, run_stage, edit_params):
    edit_params(**{"augment.transforms": ["color", "rotation"]})
    assert_refused(run_stage("augment"), "kind is `diffaugment`", "rotation", "color, translation, cutout")
    edit_params(**{"augment.kind": "none", "augment.transforms": ["color"]})
    done = run_stage("augment")
    assert done.returncode == 0
    policy = json.loads(Path("data/augment/policy.json").read_text())
    assert policy["transforms"] == [] and policy["p"] == 0
    assert any("set augment.kind: ada" in line for line in policy["advice"])
