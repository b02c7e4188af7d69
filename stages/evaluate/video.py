"""Frames as H.264 in MP4, by the ffmpeg that imageio-ffmpeg brings; equal frames give equal bytes."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from stages.errors import InputError

FRAMES_PER_SECOND = 24
QUALITY = 23  # x264's constant rate factor, its default
NAMED = "IMAGEIO_FFMPEG_EXE"
EXPECTED = f"install an ffmpeg with libx264 and set {NAMED} to its path"

# Players guess untagged colours by the size of the picture, so they are named; rounding that differs between processors
# is off.
COLOURS = (
    "scale=flags=accurate_rnd+full_chroma_int+bitexact:out_color_matrix=bt709:out_range=tv,format=yuv420p,"
    "setparams=range=tv:colorspace=bt709:color_primaries=bt709:color_trc=iec61966-2-1"
)
ENCODER = ["-c:v", "libx264", "-preset", "medium", "-crf", str(QUALITY)]
# Several threads could share the work out in other ways; x264 rounds otherwise by AVX2 than by SSE unless it is told.
# Metadata name versions and times: the bit exact muxer leaves them out, the filter drops the encoder's own message.
REPEATABLE = ["-x264-params", "cpu-independent=1"]
REPEATABLE += ["-threads", "1", "-flags", "+bitexact", "-fflags", "+bitexact", "-map_metadata", "-1"]
REPEATABLE += ["-bsf:v", "filter_units=remove_types=6"]
PLAYS_WHILE_LOADING = ["-movflags", "+faststart"]


def ffmpeg() -> str:
    """Return the program that encodes: the one in imageio-ffmpeg, or what IMAGEIO_FFMPEG_EXE names.

    One that happens to be on the machine is not taken unless it is named, since its bytes would differ.

    Raises:
        InputError: there is neither; the message tells what to install.
    """
    if named := os.environ.get(NAMED):
        if shutil.which(named) is None:
            raise InputError(f"{NAMED} is {named}, which is no program; expected the path of an ffmpeg with libx264")
        return named
    import imageio_ffmpeg

    try:
        found = imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError:
        found = ""
    if not Path(found).is_relative_to(Path(imageio_ffmpeg.__file__).parent):
        raise InputError(
            f"imageio-ffmpeg {imageio_ffmpeg.__version__} brings no ffmpeg for this platform, and the latent walk is a "
            f"video: {EXPECTED}"
        )
    return str(found)


def encode(batches: Iterable[np.ndarray], size: int, zoom: int = 1) -> bytes:
    """Return square frames as MP4: batches of uint8 (N, size, size, 3), pixels repeated `zoom` times.

    Colours are stored at half the resolution (yuv420p, which alone plays everywhere), so size times zoom is even.

    Raises:
        InputError: there is no ffmpeg for it, or it has no libx264.
    """
    program = ffmpeg()
    with tempfile.TemporaryDirectory() as folder:
        frames, video = Path(folder) / "frames.rgb", Path(folder) / "video.mp4"
        with frames.open("wb") as stream:
            for batch in batches:
                stream.write(np.ascontiguousarray(batch).data)
        done = subprocess.run(
            [program, *_arguments(frames, video, size, zoom)], stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        if done.returncode:
            told = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
            raise InputError(f"{program} could not encode a video: {told}; {EXPECTED}")
        return video.read_bytes()


def _arguments(frames: Path, video: Path, size: int, zoom: int) -> list[str]:
    raw = ["-hide_banner", "-loglevel", "error", "-f", "rawvideo", "-pixel_format", "rgb24"]
    raw += ["-video_size", f"{size}x{size}"]
    raw += ["-framerate", str(FRAMES_PER_SECOND), "-i", str(frames)]
    enlarged = f"scale={size * zoom}:{size * zoom}:flags=neighbor,{COLOURS}"
    picture = ["-an", "-filter_threads", "1", "-vf", enlarged]
    return [*raw, *picture, *ENCODER, *REPEATABLE, *PLAYS_WHILE_LOADING, str(video)]
