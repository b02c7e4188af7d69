"""data/images keeps its contract however pictures arrive: order, workers, batches, copies."""

import json
import tempfile
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings

from pipelines.known_groups import extend_known
from stages.catalogue import Picture
from stages.dataset import ImageDataset
from stages.errors import InputError
from stages.normalize.known import read_known
from stages.storage import sha256_file, sha256_tree
from tests.stages.datasets import LOCK, lay_out, normalize, png

STAYS = ("key", "label", "class_name", "group", "split", "shard", "sha256", "licence")
ALWAYS = {f"always-{seed}": (seed, 0, "") for seed in range(100, 112)}  # enough for both splits
drawn = st.tuples(st.integers(0, 9), st.integers(0, 3), st.sampled_from(["", "cat", "dog", "ant"]))


def pictures_of(described: dict) -> tuple[dict[str, bytes], list[Picture]]:
    files = {key: png(seed, shift) for key, (seed, shift, _) in described.items()}
    return files, [Picture(key, "pictures.tar", key, name) for key, (_, _, name) in described.items()]


def rows_of(images: Path) -> dict[str, dict]:
    return {row["key"]: {name: row[name] for name in STAYS} for row in ImageDataset(images).rows}


@hypothesis_settings(max_examples=12, deadline=None)
@given(st.lists(drawn, min_size=1, max_size=10), st.integers(1, 3), st.randoms(use_true_random=False))
def test_additions_leave_rows_shards_and_splits_as_they_were(descriptions, batches, random):
    everything = {f"p{number:02d}": description for number, description in enumerate(descriptions)}
    order = random.sample(list(everything), len(everything))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        before: dict[str, dict] = {}
        shards: dict[str, str] = {}
        for batch in range(batches + 1):
            present = ALWAYS | {key: everything[key] for key in order[: len(order) * batch // batches]}
            lay_out(folder, *pictures_of(present))
            images = normalize(folder)
            after = rows_of(images)
            assert {key: after[key] for key in before} == before
            touched = {after[key]["shard"] for key in set(after) - set(before)}
            hashes = {path.name: sha256_file(path) for path in images.glob("shard-*.npy")}
            assert {n: h for n, h in shards.items() if int(n[6:10]) not in touched} == {
                n: hashes[n] for n in shards if int(n[6:10]) not in touched
            }
            rejects = json.loads((images / "rejects.json").read_text())
            assert set(after) | set(rejects) == set(present)
            assert all("both splits" in reason for reason in rejects.values())
            before, shards = after, hashes
            extend_known(images, folder / LOCK)


@hypothesis_settings(max_examples=6, deadline=None)
@given(st.lists(drawn, min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_any_order_gives_the_same_bytes(descriptions, random):
    everything = ALWAYS | {f"p{number:02d}": description for number, description in enumerate(descriptions)}
    hashes = set()
    for keys in (list(everything), random.sample(list(everything), len(everything))):
        with tempfile.TemporaryDirectory() as name:
            lay_out(Path(name), *pictures_of({key: everything[key] for key in keys}))
            hashes.add(sha256_tree(normalize(Path(name))))
    assert len(hashes) == 1


def test_any_number_of_workers_gives_the_same_bytes(tmp_path):
    lay_out(tmp_path, *pictures_of(ALWAYS))
    assert len({sha256_tree(normalize(tmp_path, workers=workers)) for workers in (1, 2, 3)}) == 1


def test_copies_share_a_group_and_null_takes_identical_ones_only(tmp_path):
    described = ALWAYS | {"a": (1, 0, ""), "b": (1, 2, ""), "c": (1, 0, "")}
    lay_out(tmp_path, *pictures_of(described))
    groups = {key: row["group"] for key, row in rows_of(normalize(tmp_path)).items()}
    assert groups["a"] == groups["b"] == groups["c"]
    groups = {key: row["group"] for key, row in rows_of(normalize(tmp_path, duplicate_bits=None)).items()}
    assert groups["a"] == groups["c"] != groups["b"]


def test_what_is_known_is_extended_and_never_rewritten(tmp_path):
    lay_out(tmp_path, *pictures_of(ALWAYS))
    lock = tmp_path / LOCK
    assert not extend_known(tmp_path / "data/images", lock)
    images = normalize(tmp_path)
    assert extend_known(images, lock)
    assert not extend_known(images, lock)
    known = read_known(lock)
    assert len(known.groups) == len(ALWAYS)
    digest = min(known.groups)
    lock.write_text(json.dumps({"classes": {}, "groups": {digest: "mine"}}))
    assert extend_known(images, lock)
    assert read_known(lock).groups == known.groups | {digest: "mine"}
    assert len(lock.read_text().splitlines()) == len(ALWAYS) + 7
    row = next(row for row in rows_of(normalize(tmp_path)).values() if row["sha256"].startswith(digest))
    assert row["group"] == "mine"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "does not exist; git checkout it"),
        ("<<<<<<< HEAD", "is not valid JSON .*; git checkout it, or keep the groups of both sides"),
        ('{"classes": {}}', "holds no `classes` and `groups`"),
        ('{"classes": [], "groups": {}}', "must be mappings"),
        ('{"classes": {"folder": "a"}, "groups": {}}', "must map a source to a list"),
        ('{"classes": {"folder": ["a", "a"]}, "groups": {}}', "each once"),
        ('{"classes": {}, "groups": {"a": 1}}', "must map digests to names"),
    ],
)
def test_a_spoilt_lock_is_refused(tmp_path, content, words):
    lay_out(tmp_path, *pictures_of(ALWAYS))
    (tmp_path / LOCK).unlink()
    if content is not None:
        (tmp_path / LOCK).write_text(content)
    with pytest.raises(InputError, match=words):
        normalize(tmp_path)
    assert not (tmp_path / "data/images").exists()


def test_labels_of_earlier_classes_do_not_shift(tmp_path):
    lay_out(tmp_path, *pictures_of(ALWAYS | {"a": (1, 0, "dog"), "b": (2, 0, "cat")}))
    images = normalize(tmp_path)
    extend_known(images, tmp_path / LOCK)
    lay_out(tmp_path, *pictures_of(ALWAYS | {"a": (1, 0, "dog"), "c": (3, 0, "ant")}))
    normalize(tmp_path)
    assert ImageDataset(images).description["class_names"] == ["cat", "dog", "ant"]
    assert {row["class_name"]: row["label"] for row in ImageDataset(images).rows} == {"": -1, "dog": 1, "ant": 2}
    classes = {one["name"]: one for one in json.loads((images / "report.json").read_text())["classes"]}
    assert classes["cat"]["warning"] == "no picture any more; its label stays taken"
    assert classes["ant"]["warning"] == "one picture only"


def test_no_picture_left_is_refused(tmp_path):
    lay_out(tmp_path, {"a": b"no picture"})
    with pytest.raises(InputError, match="no picture is left"):
        normalize(tmp_path)
