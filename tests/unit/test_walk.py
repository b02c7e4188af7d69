"""The latent walk: its path, its frames, and the film that ffmpeg makes of them."""

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.dataset import to_uint8
from stages.errors import GateError, InputError
from stages.evaluate import video
from stages.evaluate.unseen import walk
from stages.evaluate.unseen.walk import Walk, check_walk, film_walk, walk_path, walks_beside, zoom_of
from stages.evaluate.video import encode, ffmpeg
from stages.generators.interface import Capabilities, Generator, Request
from stages.generators.noise import latents

SIZE, LATENT, FRAMES = 16, 12, 145


class Coloured(Generator):
    """Draws three numbers of the latent as colours, one for each quarter of the picture, and notes labels."""

    identity: dict[str, str] = {}

    def __init__(self, log: list[Request] | None = None, **takes: Any) -> None:
        self.capabilities = Capabilities("c", (LATENT,), **({"resolution": SIZE, "channels": 3} | takes))
        self.log = [] if log is None else log

    def generate(self, request: Request) -> np.ndarray:
        self.log.append(request)
        takes = self.capabilities
        quarters = np.tanh(request.latent).reshape(-1, 3, 2, 2)[:, : takes.channels]
        drawn: np.ndarray = quarters.repeat(takes.resolution // 2, axis=2).repeat(takes.resolution // 2, axis=3)
        return drawn


def frames_of(generator: Generator, monkeypatch: pytest.MonkeyPatch, batch: int = 64) -> np.ndarray:
    """Return the frames that a walk is filmed of."""
    given = dict[int, np.ndarray]()

    def keep(batches: Iterable[np.ndarray], size: int, zoom: int) -> bytes:
        given[size] = np.concatenate(list(batches))
        return b"film"

    monkeypatch.setattr(walk, "encode", keep)
    film_walk(generator, batch)
    ((size, frames),) = given.items()
    assert frames.dtype == np.uint8 and frames.shape[1:] == (size, size, 3)
    return frames


def decoded(film: bytes, size: int, folder: Path) -> np.ndarray:
    """Return a film's frames as ffmpeg sees them."""
    path = folder / "film.mp4"
    path.write_bytes(film)
    command = [ffmpeg(), "-loglevel", "error", "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    return np.frombuffer(done.stdout, np.uint8).reshape(-1, size, size, 3)


def test_walks_pass_their_seeds_and_come_back_evenly() -> None:
    path = np.stack(list(walk_path(16, (LATENT,))))
    assert path.shape == (FRAMES, 16, LATENT) and path.dtype == np.float32
    np.testing.assert_array_equal(path[0], path[-1])
    np.testing.assert_array_equal(path[:-1:24].reshape(96, LATENT), latents(range(96), (LATENT,)))
    units = path / np.linalg.norm(path, axis=2, keepdims=True)
    angles = np.arccos(np.clip((units[1:] * units[:-1]).sum(axis=2), -1, 1))
    assert 0 < angles.max() < np.pi / 24 * 1.01
    legs = angles.reshape(6, 24, 16)
    np.testing.assert_allclose(legs, legs.mean(axis=1, keepdims=True).repeat(24, axis=1), atol=2e-3)


def test_frames_begin_with_the_first_seeds_and_end_where_they_began(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = Coloured()
    frames = frames_of(generator, monkeypatch)
    assert frames.shape == (FRAMES, 4 * SIZE, 4 * SIZE, 3)
    np.testing.assert_array_equal(frames[0], frames[-1])
    drawn = to_uint8(generator.generate(Request(latents(range(16), (LATENT,))))).transpose(0, 2, 3, 1)
    for number, picture in enumerate(drawn):
        top, left = number // 4 * SIZE, number % 4 * SIZE
        np.testing.assert_array_equal(frames[0, top : top + SIZE, left : left + SIZE], picture)
    steps = np.abs(np.diff(frames.astype(int), axis=0)).mean(axis=(1, 2, 3))
    apart = np.abs(frames[0].astype(int) - frames[24]).mean()
    assert steps.min() > 0 and steps.max() < apart / 5


def test_frames_do_not_depend_on_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [frames_of(Coloured(), monkeypatch, batch) for batch in (1, 40, 1000)]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_each_walk_keeps_its_class(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[Request] = []
    frames_of(Coloured(log, class_names=("a", "b", "c")), monkeypatch)
    labels = np.concatenate([request.extra["label"] for request in log]).reshape(FRAMES, 16)
    assert (labels == np.arange(16) % 3).all()


def test_grey_pictures_have_three_equal_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = frames_of(Coloured(channels=1), monkeypatch)
    assert (frames == frames[..., :1]).all() and frames.std() > 10


def test_a_film_shows_its_frames_and_repeats_byte_for_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = film_walk(Coloured(), 64)
    assert found.part == {"walk": {"walks": 16, "latents": 6, "frames": FRAMES, "frames_per_second": 24}}
    shown = decoded(found.film, 256, tmp_path)  # 64 pixels, four times as large
    expected = frames_of(Coloured(), monkeypatch).repeat(4, axis=1).repeat(4, axis=2)
    assert shown.shape == expected.shape
    assert np.abs(shown.astype(int) - expected).mean() < 3
    monkeypatch.undo()
    assert film_walk(Coloured(), 17).film == found.film


def test_a_film_names_no_version_and_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    film = encode([noise(20)], 32)
    assert b"x264 - core" not in film and b"Lavf" not in film
    assert b"Lavc libx264" in film or b"Lavc" not in film  # a name without a version
    header = film.index(b"mvhd")
    assert film[header + 8 : header + 16] == bytes(8)  # created and changed


def test_a_film_is_the_same_on_processors_without_wide_registers(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = noise(40)
    film = encode([frames], 32, 2)
    place = video.REPEATABLE.index("-x264-params") + 1
    narrow = [f"{text}:asm=sse2" if number == place else text for number, text in enumerate(video.REPEATABLE)]
    monkeypatch.setattr(video, "REPEATABLE", narrow)
    assert encode([frames], 32, 2) == film != encode([frames[::-1]], 32, 2)


def noise(count: int) -> np.ndarray:
    """Return frames of noise that moves."""
    rng = np.random.Generator(np.random.Philox(key=1))
    still = rng.integers(0, 256, (8, 8, 3)).repeat(4, axis=0).repeat(4, axis=1)
    moving = np.stack([np.roll(still, number, axis=1) for number in range(count)])
    return np.clip(moving + rng.normal(0, 12, moving.shape), 0, 255).astype(np.uint8)


def test_generators_that_draw_in_steps_have_no_walk(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[Request] = []
    monkeypatch.setattr(video, "ffmpeg", lambda: pytest.fail("no ffmpeg is needed"))
    monkeypatch.setattr(walk, "ffmpeg", lambda: pytest.fail("no ffmpeg is needed"))
    check_walk(Coloured(steps=10).capabilities)
    assert film_walk(Coloured(log, steps=10), 64) == Walk() and log == []


def test_numbers_that_are_not_finite_are_refused() -> None:
    class Diverged(Coloured):
        def generate(self, request: Request) -> np.ndarray:
            return super().generate(request) * np.float32("nan")

    with pytest.raises(GateError, match="NaN or infinity"):
        film_walk(Diverged(), 64)


@pytest.mark.parametrize(
    ("resolution", "side", "zoom"), [(8, 4, 8), (32, 4, 2), (64, 4, 2), (128, 4, 1), (256, 2, 1), (1024, 1, 1)]
)
def test_films_of_small_pictures_show_more_and_larger(resolution: int, side: int, zoom: int) -> None:
    assert walks_beside(resolution) == side
    assert zoom_of(side, resolution) == zoom


@pytest.mark.parametrize("found", [None, "/usr/bin/ffmpeg", "ffmpeg"])
def test_an_ffmpeg_that_happens_to_be_there_is_not_taken(found: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def search() -> str:
        if found is None:
            raise RuntimeError("No ffmpeg exe could be found.")
        return found

    monkeypatch.delenv(video.NAMED, raising=False)
    monkeypatch.setattr("imageio_ffmpeg.get_ffmpeg_exe", search)
    with pytest.raises(InputError, match=f"no ffmpeg for this platform.*install an ffmpeg.*{video.NAMED}"):
        check_walk(Coloured().capabilities)


def test_a_named_program_is_taken_or_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(video.NAMED, str(tmp_path / "absent"))
    with pytest.raises(InputError, match=f"{video.NAMED} is .*absent, which is no program"):
        check_walk(Coloured().capabilities)
    poor = tmp_path / "poor"
    poor.write_text(f"#!{sys.executable}\nimport sys\nsys.exit(\"Unknown encoder 'libx264'\")\n")
    poor.chmod(0o755)
    monkeypatch.setenv(video.NAMED, str(poor))
    with pytest.raises(InputError, match="poor could not encode a video: Unknown encoder 'libx264'; install an ffmpeg"):
        film_walk(Coloured(), 64)
