"""MTCNN's cascade: finds the faces of every size in a picture, with five points each."""

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.ops import nms, roi_align

from stages.align.mtcnn import Detector
from stages.align.upright import GREY, Face, look_again, to_values

LONGEST_SIDE = 640  # larger pictures are searched at this size
SMALLEST_FACE = 20  # pixels at that size
PADDING = 0.1  # of the longer side, in grey, around the picture: more does not find more faces that the border cuts
PYRAMID_STEP = 0.709  # halves the area
CELL, STRIDE = 12, 2  # of the proposal network
PROPOSAL_THRESHOLD, REFINEMENT_THRESHOLD = 0.6, 0.7
OUTPUT_THRESHOLD = 0.2  # low, for the look at the upright face decides: a leaning one gets little here
OVERLAP_OF_A_LEVEL, OVERLAP = 0.5, 0.7  # of boxes that show one face
REFINEMENT_SIZE, OUTPUT_SIZE = 24, 48
BATCH = 256


def find_faces(detector: Detector, picture: Image.Image, confidence: float) -> list[Face]:
    """Return all that could be a face, the surest first; which are faces, their confidence tells.

    Finds faces that lean by up to about 60 degrees, and of at least a thirty-second of the picture's longer side.
    Where none is sure enough, the picture is searched in quarter turns too.
    """
    scale = min(1.0, LONGEST_SIDE / max(picture.size))
    small = picture.resize([max(1, round(side * scale)) for side in picture.size], Image.Resampling.BOX)
    ratio = np.array(picture.size) / np.array(small.size)
    surest: list[Face] = []
    for quarters in range(4):
        faces = _search(detector, small, quarters)
        if faces and (not surest or faces[0].confidence > surest[0].confidence):
            surest = faces
        if surest and surest[0].confidence >= confidence:
            break
    return [Face(face.points * ratio, face.confidence) for face in surest]


def _search(detector: Detector, picture: Image.Image, quarters: int) -> list[Face]:
    """Return the faces of a picture that is turned counter-clockwise, in its coordinates before the turn.

    A face whose middle the border cuts away is none: more of it would be guessed than seen.
    """
    turned = picture.rotate(90 * quarters, expand=True)
    padding = round(PADDING * max(turned.size))
    with torch.inference_mode():
        found = _locate(detector, ImageOps.expand(turned, padding, GREY))
        faces = [look_again(detector, turned, points - padding) for points in found]
    faces = [face for face in faces if (face.centre >= 0).all() and (face.centre < turned.size).all()]
    return [Face(turn_back(face.points, picture.size, quarters), face.confidence) for face in _distinct(faces)]


def turn_back(points: np.ndarray, size: tuple[int, int], quarters: int) -> np.ndarray:
    """Return where points lay before their picture, of this size then, was turned counter-clockwise by quarters."""
    centre, turned_centre = np.array(size) / 2, np.array(size if quarters % 2 == 0 else size[::-1]) / 2
    x, y = (points - turned_centre).T
    for _ in range(quarters):
        x, y = -y, x
    return np.stack([x, y], 1) + centre


def _locate(detector: Detector, picture: Image.Image) -> list[np.ndarray]:
    """Return the points, shape (5, 2), of each box that all three networks take for a face."""
    pixels = to_values(picture)
    squares = square_boxes(_refine(detector, pixels, _propose(detector, picture)))
    if not len(squares):
        return []
    scores, offsets, points = detector.output(_crops(pixels, squares, OUTPUT_SIZE))
    places = squares[:, None, :2] + points.transpose(1, 2) * (squares[:, 2:] - squares[:, :2])[:, None]
    kept = nms(_move(squares, offsets), scores, OVERLAP)
    return [places[i].double().numpy() for i in kept.tolist() if scores[i] > OUTPUT_THRESHOLD]


def _propose(detector: Detector, picture: Image.Image) -> Tensor:
    """Return boxes (N, 4) that the first network takes for faces, from all levels of a pyramid."""
    boxes, scores = [torch.zeros(0, 4)], [torch.zeros(0)]
    scale = CELL / SMALLEST_FACE
    while min(picture.size) * scale >= CELL:
        found, probability = _propose_at(detector, picture, scale)
        kept = nms(found, probability, OVERLAP_OF_A_LEVEL)
        boxes.append(found[kept])
        scores.append(probability[kept])
        scale *= PYRAMID_STEP
    every = torch.cat(boxes)
    return every[nms(every, torch.cat(scores), OVERLAP)]


def _propose_at(detector: Detector, picture: Image.Image, scale: float) -> tuple[Tensor, Tensor]:
    size = [int(side * scale) + 1 for side in picture.size]
    probability, offsets = detector.proposal(to_values(picture.resize(size, Image.Resampling.BOX)))
    _, rows, columns = torch.nonzero(probability > PROPOSAL_THRESHOLD, as_tuple=True)
    corner = torch.stack([columns, rows], 1) * float(STRIDE)
    boxes = torch.cat([corner, corner + CELL], 1) / scale
    return _move(boxes, offsets[0, :, rows, columns].T), probability[0, rows, columns]


def _refine(detector: Detector, pixels: Tensor, boxes: Tensor) -> Tensor:
    """Return those boxes that the second network confirms, moved to where it sees them."""
    squares = square_boxes(boxes)
    if not len(squares):
        return squares
    results = [detector.refinement(batch) for batch in _crops(pixels, squares, REFINEMENT_SIZE).split(BATCH)]
    scores, offsets = (torch.cat(parts) for parts in zip(*results, strict=True))
    sure = scores > REFINEMENT_THRESHOLD
    squares, scores, offsets = squares[sure], scores[sure], offsets[sure]
    kept = nms(squares, scores, OVERLAP)
    return _move(squares[kept], offsets[kept])


def _crops(pixels: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Return what boxes show, averaged to a size: fractions of pixels count, and outside of the picture is grey."""
    return roi_align(pixels, [boxes], size, aligned=True)


def _move(boxes: Tensor, offsets: Tensor) -> Tensor:
    """Move the sides of boxes by offsets in units of the box."""
    return boxes + offsets * (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)


def square_boxes(boxes: Tensor) -> Tensor:
    """Return boxes (N, 4) as squares of their longer side, with the same centres."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    halves = (boxes[:, 2:] - boxes[:, :2]).amax(1, keepdim=True) / 2
    return torch.cat([centres - halves, centres + halves], 1)


def _distinct(faces: list[Face]) -> list[Face]:
    """Return faces by falling confidence, without those that a surer one covers mostly, or that cover most of it.

    A square within a larger one is the same face seen twice, which the usual intersection over union would keep.
    """
    kept: list[Face] = []
    for face in sorted(faces, key=lambda face: -face.confidence):
        if all(_shared(face.box, other.box) <= OVERLAP for other in kept):
            kept.append(face)
    return kept


def _shared(one: np.ndarray, other: np.ndarray) -> float:
    """Return the area that two boxes share, as a share of the smaller one."""
    sides = (np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])).clip(0)
    smaller = min((box[2:] - box[:2]).prod() for box in (one, other))
    return float(sides.prod() / smaller) if smaller > 0 else 0.0
