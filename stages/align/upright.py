"""Looks at a face again, turned upright and in its mirror, from where the cascade said that it is."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from stages.align.mtcnn import Detector

SIZE = 48  # of the last network's input
LOOKS = 2
SIDE = 2.5  # times the distance between the eyes, or eyes and mouth: the square in which the network sees best
MIRROR = [1, 0, 2, 4, 3]  # which point is which in a mirror
GREY = (128, 128, 128)


@dataclass(frozen=True)
class Face:
    """Five points in pixels, shape (5, 2): left and right eye (as seen), nose, left and right corner of the mouth."""

    points: np.ndarray
    confidence: float

    @property
    def centre(self) -> np.ndarray:
        """Mean of the points."""
        mean: np.ndarray = self.points.mean(0)
        return mean

    @property
    def side(self) -> float:
        """Pixels along a side of the square that the face fills."""
        across, down = self.points[1] - self.points[0], self.points[3:].mean(0) - self.points[:2].mean(0)
        return SIDE * max(math.hypot(*across), math.hypot(*down), 1.0)

    @property
    def box(self) -> np.ndarray:
        """The square's left, top, right and bottom, without its turn."""
        return np.concatenate([self.centre - self.side / 2, self.centre + self.side / 2])

    @property
    def axes(self) -> np.ndarray:
        """The square's upper and left side as vectors, shape (2, 2): along the eyes, and at right angles to them."""
        x, y = self.points[1] - self.points[0]
        turn = np.array([x, y]) / math.hypot(x, y) if math.hypot(x, y) else np.array([1.0, 0.0])
        return np.array([turn, [-turn[1], turn[0]]]) * self.side


def look_again(detector: Detector, picture: Image.Image, points: np.ndarray) -> Face:
    """Return a face with the points that the last network sees in the upright square around some first ones.

    The network was trained on upright faces: on leaning ones a second look is far closer. The confidence is the
    lowest of all looks: what is no face seldom looks like one when turned and mirrored.
    """
    face = Face(points, 1.0)
    for _ in range(LOOKS):
        origin = face.centre - face.axes.sum(0) / 2
        seen = to_values(_upright(picture, origin, face.axes))
        confidence, _, found = detector.output(torch.cat([seen, seen.flip(3)]))
        straight, mirrored = found.transpose(1, 2).double().numpy()
        back = np.stack([1 - mirrored[MIRROR, 0], mirrored[MIRROR, 1]], 1)
        points = origin + (straight + back) / 2 @ face.axes
        face = Face(points, min(face.confidence, float(confidence.min())))
    return face


def to_values(picture: Image.Image) -> Tensor:
    """Return what the networks see: shape (1, 3, H, W), in [-1, 1], so that zero is grey."""
    values: Tensor = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float()  # channels last, as it lies
    return (values - 127.5) / 128


def _upright(picture: Image.Image, origin: np.ndarray, axes: np.ndarray) -> Image.Image:
    """Return the square that two axes span from an origin, in the network's size, grey outside of the picture."""
    whole = max(1, math.ceil(math.hypot(*axes[0]) / SIZE))
    side = whole * SIZE
    (a, d), (b, e) = axes / side
    affine = (a, b, origin[0], d, e, origin[1])
    square = picture.transform((side, side), Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC, fillcolor=GREY)
    return square.reduce(whole)
