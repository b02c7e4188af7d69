"""Folders of pictures: order, classes, colours and sizes, and files that no reader should trust."""

import contextlib
import io
import os
import random
import struct
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.errors import InputError
from stages.evaluate.plain.folder_pictures import Folder, find_pictures, open_folder, shown
from tests.conftest import PICTURES

NOBODY = 65_534


def noise(seed: int, size: tuple[int, int] = (16, 16)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def save(path: Path, image: Image.Image, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def pixels_of(folder: Folder, batch: int = 64) -> list[np.ndarray]:
    return [picture for part in folder.batches(batch) for picture in part]


def refusal(folder: Path, count: int | None = None) -> str:
    with pytest.raises(InputError) as caught:
        pixels_of(open_folder(folder, count))
    message = str(caught.value)
    assert "\n" not in message and message.isprintable()
    return message


def test_pictures_come_in_the_order_of_their_paths_whatever_their_format(tmp_path: Path):
    lossless = {"b.png": {}, "a/z.bmp": {}, "c.webp": {"lossless": True}, "d.tiff": {}, "e.ppm": {}, "A.PNG": {}}
    for number, (name, options) in enumerate(lossless.items()):
        save(tmp_path / name, noise(number), **options)
    save(tmp_path / ".hidden.png", noise(99))
    save(tmp_path / ".git" / "x.png", noise(98))
    (tmp_path / "notes.txt").write_text("not a picture")
    folder = open_folder(tmp_path)
    assert [file.name for file in folder.files] == ["A.PNG", "a/z.bmp", "b.png", "c.webp", "d.tiff", "e.ppm"]
    expected = [np.asarray(noise(seed)).transpose(2, 0, 1) for seed in (5, 1, 0, 2, 3, 4)]
    np.testing.assert_array_equal(pixels_of(folder), expected)
    assert [len(part) for part in folder.batches(4)] == [4, 2]
    assert (folder.sizes, folder.notes()) == ([(16, 16)], [])
    assert folder.classes() == (None, ())  # some lie in no folder of their own


def test_the_first_frame_of_an_animation_counts(tmp_path: Path):
    frames = [Image.new("P", (8, 8), colour) for colour in (0, 1)]
    for frame in frames:
        frame.putpalette([0, 0, 255, 255, 0, 0])
    save(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    assert (pixels_of(open_folder(tmp_path))[0] == np.array([0, 0, 255])[:, None, None]).all()


def test_folders_of_the_top_level_are_classes():
    folder = open_folder(PICTURES)
    labels, names = folder.classes()
    assert names == ("animal", "happy", "sad") and labels is not None
    assert labels.dtype == np.int64 and len(labels) == len(folder.files) == 68
    for file, label in zip(folder.files, labels, strict=True):
        assert file.name.startswith(f"{names[label]}/")


def test_the_content_is_that_of_names_and_bytes(tmp_path: Path):
    for number in range(3):
        save(tmp_path / "one" / f"{number}.png", noise(number))
        save(tmp_path / "two" / f"{number}.png", noise(number))
    first = open_folder(tmp_path / "one").content
    assert open_folder(tmp_path / "two").content == first
    (tmp_path / "two" / "2.png").rename(tmp_path / "two" / "3.png")
    renamed = open_folder(tmp_path / "two").content
    save(tmp_path / "two" / "3.png", noise(9))
    assert len({first, renamed, open_folder(tmp_path / "two").content}) == 3
    assert open_folder(tmp_path / "one", 2).content != first


def test_a_part_is_drawn_by_seed_without_replacement(tmp_path: Path):
    for number in range(12):
        save(tmp_path / f"{number:02}.png", noise(number))
    parts = [[file.name for file in open_folder(tmp_path, 5, seed).files] for seed in (0, 0, 1)]
    assert parts[0] == parts[1] != parts[2]
    assert parts[0] == sorted(set(parts[0])) and len(parts[0]) == 5
    assert "holds 12 pictures, 13 are asked for" in refusal(tmp_path, 13)


def test_sizes_may_differ_within_a_folder_and_no_batch_mixes_them(tmp_path: Path):
    sizes = [(16, 16), (16, 16), (8, 20), (16, 16), (8, 20), (8, 20)]
    for number, size in enumerate(sizes):
        save(tmp_path / f"{number}.png", noise(number, size))
    folder = open_folder(tmp_path)
    assert [part.shape for part in folder.batches(64)] == [(2, 3, 16, 16), (1, 3, 20, 8), (1, 3, 16, 16), (2, 3, 20, 8)]
    assert folder.sizes == [(16, 16), (8, 20)]
    for number, picture in enumerate(pixels_of(folder)):
        np.testing.assert_array_equal(picture, np.asarray(noise(number, sizes[number])).transpose(2, 0, 1))


def test_colours_are_those_of_the_fields_tools_and_each_oddity_is_told_once(tmp_path: Path):
    red = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    save(tmp_path / "clear.png", red)
    save(tmp_path / "grey1.png", Image.new("L", (8, 8), 77))
    save(tmp_path / "grey2.png", Image.new("1", (8, 8), 1))
    save(tmp_path / "inks.jpg", Image.new("CMYK", (8, 8), (0, 255, 255, 0)), quality=100)
    save(tmp_path / "palette.png", noise(1).quantize(4))
    save(tmp_path / "plain.png", noise(1))
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "turned.jpg", noise(2, (8, 12)), exif=exif, quality=100)
    folder = open_folder(tmp_path)
    found = dict(zip([file.name for file in folder.files], pixels_of(folder), strict=True))
    for name, picture in found.items():
        with Image.open(tmp_path / name) as image:  # what torch-fidelity, pytorch-fid and clean-fid do
            np.testing.assert_array_equal(picture, np.asarray(image.convert("RGB")).transpose(2, 0, 1))
    assert found["clear.png"][0].min() == 255 and found["turned.jpg"].shape == (3, 12, 8)
    told = [note.removeprefix(f"{tmp_path}: ") for note in folder.notes()]
    words = ["2 of 7 pictures are grey", "1 of 7 pictures have an alpha", "1 of 7 pictures are CMYK"]
    for start, note in zip([*words, "1 of 7 pictures have an EXIF"], told, strict=True):
        assert note.startswith(start)


def test_sixteen_bits_are_scaled_and_never_clipped_to_white(tmp_path: Path):
    values = np.linspace(0, 65_535, 256).round().astype(np.uint16).reshape(16, 16)
    save(tmp_path / "deep.png", Image.fromarray(values))
    folder = open_folder(tmp_path)
    for channel in pixels_of(folder)[0]:
        np.testing.assert_array_equal(channel.ravel(), np.arange(256))
    assert "clip them to white" in folder.notes()[0]


def test_names_may_hold_anything_and_stay_in_one_line(tmp_path: Path):
    names = ["ein Bär.png", "新.png", "line\nbreak.png", os.fsdecode(b"\xff.png"), "-x.png", "a\x1b[31m.png"]
    for number, name in enumerate(names):
        save(tmp_path / "cl\nass" / name, noise(number))
    folder = open_folder(tmp_path)
    assert len(pixels_of(folder)) == len(names) and len(folder.content) == 64
    assert folder.classes()[1] == ("cl\\nass",)
    (tmp_path / "cl\nass" / "line\nbreak.png").write_text("no picture")
    assert "cl\\nass/line\\nbreak.png: not a picture" in refusal(tmp_path)
    assert shown("新") == "新" and shown("a\nb") == "a\\nb"


def test_links_are_followed_and_a_loop_is_named(tmp_path: Path):
    save(tmp_path / "elsewhere" / "1.png", noise(1))
    save(tmp_path / "set" / "a" / "0.png", noise(0))
    (tmp_path / "set" / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "a" / "9.png").symlink_to(tmp_path / "elsewhere" / "1.png")
    assert find_pictures(tmp_path / "set") == ["a/0.png", "a/9.png", "b/1.png"]
    (tmp_path / "set" / "a" / "back").symlink_to(tmp_path / "set")
    assert "set/a/back leads back to a folder that holds it; remove the link" in refusal(tmp_path / "set")


@pytest.mark.parametrize("target", ["0.png", "absent.png"])
def test_links_to_nothing_are_named(target: str, tmp_path: Path):
    (tmp_path / "0.png").symlink_to(target)
    message = refusal(tmp_path)
    assert "0.png: cannot be read" in message and "remove the file" in message


def resized(png: bytes, side: int) -> bytes:
    """Return a PNG whose header claims another size, with a valid checksum."""
    header = b"IHDR" + struct.pack(">II", side, side) + png[24:29]
    return png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]


def write_broken(folder: Path) -> dict[str, str]:
    """Write one broken file of a kind into a folder each; return the words that must name what is wrong."""
    png, jpeg = io.BytesIO(), io.BytesIO()
    noise(0, (64, 64)).save(png, "PNG")
    noise(0, (64, 64)).save(jpeg, "JPEG", quality=95)
    deep = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), np.float32)).save(deep, "TIFF")
    corrupt = bytearray(png.getvalue())
    corrupt[len(corrupt) // 2] ^= 0xFF
    files = {
        "text.png": (b"hello", "not a picture of a known format"),
        "empty.jpg": (b"", "not a picture of a known format"),
        "svg.png": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture of a known format"),
        "cut.jpg": (jpeg.getvalue()[:600], "damaged"),
        "cut.png": (png.getvalue()[:2000], "damaged"),
        "header.png": (png.getvalue()[:20], "damaged"),
        "corrupt.png": (bytes(corrupt), "damaged"),
        "float.tif": (deep.getvalue(), "32-bit floats of unknown range"),
        "large.png": (resized(png.getvalue(), 9_000), "pixels are more than"),
        "bomb.png": (resized(png.getvalue(), 65_536), "decompression bomb"),
    }
    for name, (data, _) in files.items():
        (folder / name).mkdir()
        (folder / name / name).write_bytes(data)
    return {name: words for name, (_, words) in files.items()}


def test_broken_files_are_named_with_what_to_do(tmp_path: Path):
    for name, words in write_broken(tmp_path).items():
        message = refusal(tmp_path / name)
        assert f"{name}/{name}: " in message and words in message, message
        assert "remove the file or replace it" in message


def test_a_broken_file_among_whole_ones_is_the_one_that_is_named(tmp_path: Path):
    for number in range(5):
        save(tmp_path / f"{number}.png", noise(number))
    (tmp_path / "2.png").write_bytes((tmp_path / "2.png").read_bytes()[:200])
    assert "2.png: damaged" in refusal(tmp_path)


def test_random_damage_ends_in_one_line_or_in_a_picture(tmp_path: Path):
    random.seed(0)
    for suffix in ("png", "jpg", "webp", "gif", "bmp", "tif", "ppm"):
        path = save(tmp_path / f"x.{suffix}", noise(3, (24, 24)))
        whole = path.read_bytes()
        for _ in range(25):
            damaged = bytearray(whole[: random.randrange(len(whole)) or 1])
            for _ in range(random.randrange(4)):
                damaged[random.randrange(len(damaged))] = random.randrange(256)
            path.write_bytes(damaged)
            with contextlib.suppress(InputError):
                for picture in pixels_of(open_folder(tmp_path)):
                    assert picture.dtype == np.uint8 and picture.shape[0] == 3
        path.unlink()


def test_a_file_that_changes_meanwhile_is_not_measured(tmp_path: Path):
    save(tmp_path / "a.png", noise(0))
    folder = open_folder(tmp_path)
    save(tmp_path / "a.png", noise(1))
    with pytest.raises(InputError, match="changed while it was measured"):
        pixels_of(folder)


def test_what_is_no_folder_of_pictures_is_told(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.txt").write_text("")
    file = save(tmp_path / "file.png", noise(0))
    assert "holds no pictures" in refusal(tmp_path / "empty") and ".png" in refusal(tmp_path / "other")
    assert "does not exist" in refusal(tmp_path / "absent")
    assert "is a file; expected a folder" in refusal(file)


def test_a_pipe_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "a.png")
    assert "no regular file" in refusal(tmp_path)


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Give root's rights up for a while, as they would open anything."""
    if os.geteuid():
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_what_may_not_be_read_is_named():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        save(folder / "set" / "in" / "a.png", noise(0))
        (folder / "set" / "in" / "a.png").chmod(0)
        with as_nobody():
            assert "set/in/a.png: cannot be read: Permission denied" in refusal(folder / "set")
        (folder / "set" / "in").chmod(0)
        with as_nobody():
            assert "set/in cannot be listed: Permission denied" in refusal(folder / "set")
        (folder / "set" / "in").chmod(0o755)
