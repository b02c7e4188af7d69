"""`align` in mode `face` with the real networks on real faces: where the points are, and what is refused."""

import json
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stages.align.cascade import find_faces
from stages.align.mtcnn import Detector, build
from stages.align.upright import Face
from stages.catalogue import ORIGIN, Picture, write_catalogue
from stages.crops import read_crops
from stages.dataset import ImageDataset
from stages.errors import InputError
from stages.packages import cache_folder, check_sha256, fetch
from stages.storage import sha256_tree, write_json
from tests.conftest import ROOT

# Left and right eye (as seen; the mean of six points of the lids), nose and corners of the mouth by the FaceMesh of
# MediaPipe 0.10.14 (its points 33 160 158 133 153 144, 362 385 387 263 373 380, 1, 61, 291) on the whole photo with a
# quarter of its longer side in grey around it; obama3 on its upper 1,434 pixels: FaceMesh finds no face in the whole.
ASTRONAUT = [[105.3, 101.5], [149.1, 103.8], [124.9, 130.7], [104.2, 139.8], [147.3, 140.6]]
PHOTOS = {
    "obama": [[443.5, 215.4], [549.9, 213.2], [495.2, 286.8], [434.7, 322.1], [556.3, 318.4]],
    "obama2": [[250.6, 372.3], [367.6, 381.6], [282.5, 453.7], [247.7, 523.4], [352.7, 525.2]],
    "obama3": [[739.1, 387.0], [858.9, 399.8], [810.1, 448.1], [734.4, 515.3], [846.0, 526.6]],
    "biden": [[532.4, 325.1], [651.7, 349.2], [591.5, 411.7], [517.7, 461.2], [626.7, 476.7]],
    "obama_partial_face": [[26.7, 215.0], [131.4, 213.0], [73.7, 283.7], [16.6, 322.3], [137.8, 318.5]],
    "obama_partial_face2": [[443.0, 215.8], [544.6, 212.3], [503.1, 280.9], [434.3, 321.8], [554.3, 317.3]],
}
PHOTOS_PACKAGE = "face-recognition==1.3.0"
PHOTOS_SHA256 = "5e5efdd1686aa566af0d3cc1313b131e4b197657a8ffd03669e6d3fad92705ec"
LARGEST_ERROR = 0.05  # of the distance between the eyes
CONFIDENCE = 0.95


@pytest.fixture(scope="session")
def wheel() -> Path:
    """The detector's weights, from the cache or the registry."""
    return fetch("facenet-pytorch")


@pytest.fixture(scope="session")
def detector(wheel: Path) -> Detector:
    return build(wheel)


@pytest.fixture
def astronaut() -> Image.Image:
    return Image.open(ROOT / "tests" / "pictures_faces" / "astronaut.jpg").convert("RGB")


@pytest.fixture
def put_in(empty_workspace, edit_params):
    """Make pictures, by name, the raw data of a workspace whose mode is `face`; bytes are taken as they are."""

    def put(**pictures: Image.Image | bytes) -> None:
        raw = Path("data/raw")
        raw.mkdir(parents=True, exist_ok=True)
        with tarfile.open(raw / "own.tar", "w") as tar:
            for name, picture in pictures.items():
                path = empty_workspace / f"{name}.png"
                if isinstance(picture, bytes):
                    path.write_bytes(picture)
                else:
                    picture.save(path)
                tar.add(path, path.name)
        write_catalogue(raw, [Picture(f"{name}.png", "own.tar", f"{name}.png", group=name) for name in pictures])
        write_json(raw / ORIGIN, {"source": "folder"})

    edit_params(**{"align.mode": "face", "data.max_reject_share": 0.3, "align.face.which": "all"})
    return put


def surest(detector: Detector, picture: Image.Image) -> Face:
    faces = [face for face in find_faces(detector, picture, CONFIDENCE) if face.confidence >= CONFIDENCE]
    assert len(faces) == 1
    return faces[0]


def error(points: np.ndarray, reference: list[list[float]]) -> float:
    """The mean distance to a reference's points over that between its eyes."""
    expected = np.array(reference)
    distances = np.linalg.norm(points - expected, axis=1)
    return float(distances.mean() / np.linalg.norm(expected[1] - expected[0]))


def test_the_points_are_where_they_belong(detector, astronaut):
    assert error(surest(detector, astronaut).points, ASTRONAUT) < LARGEST_ERROR


@pytest.mark.parametrize("degrees", [-50, -20, 35, 90, 180, 225])
def test_a_face_may_lean_lie_or_stand_on_its_head(detector, astronaut, degrees):
    turned = astronaut.rotate(degrees, Image.Resampling.BICUBIC, expand=True, fillcolor=(90, 120, 90))
    turn = np.exp(-1j * np.radians(degrees))
    moved = (np.array(ASTRONAUT) - np.array(astronaut.size) / 2) @ [1, 1j] * turn
    expected = np.stack([moved.real, moved.imag], 1) + np.array(turned.size) / 2
    assert error(surest(detector, turned).points, expected.tolist()) < LARGEST_ERROR


@pytest.mark.parametrize("box", [(96, 0, 256, 256), (0, 0, 256, 150), (0, 85, 256, 256)])
def test_a_face_that_the_border_cuts_is_found(detector, astronaut, box):
    """Through an eye, through the mouth, and at the brow."""
    cut = astronaut.crop(box)
    points = surest(detector, cut).points + np.array(box[:2])
    assert error(points, ASTRONAUT) < 2 * LARGEST_ERROR


@pytest.mark.slow
def test_the_points_on_six_photos(detector, tmp_path):
    """3.2 MB of face-recognition's own test pictures from the registry: on each the mean error is at most .05."""
    archive = cache_folder() / "face_recognition-1.3.0.tar.gz"
    if not archive.exists():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        subprocess.run([*command, PHOTOS_PACKAGE, "--dest", str(tmp_path)], check=True, timeout=300)
        (tmp_path / archive.name).replace(archive)
    check_sha256(archive, PHOTOS_SHA256)
    errors = {}
    with tarfile.open(archive) as tar:
        for name, reference in PHOTOS.items():
            stream = tar.extractfile(f"face_recognition-1.3.0/tests/test_images/{name}.jpg")
            assert stream is not None
            picture = Image.open(stream).convert("RGB")
            errors[name] = error(surest(detector, picture).points, reference)
    print({name: round(value, 4) for name, value in errors.items()})
    assert max(errors.values()) < LARGEST_ERROR


def test_every_face_becomes_a_picture(put_in, astronaut, run_stage, edit_params):
    """Two sizes on one canvas, and no matter how many workers: the same bytes."""
    pair = Image.new("RGB", (420, 260), (190, 200, 180))
    pair.paste(astronaut.resize((150, 150), Image.Resampling.LANCZOS), (0, 60))
    pair.paste(astronaut, (160, 2))
    wood = Image.effect_noise((200, 200), 40).convert("RGB")
    put_in(pair=pair, one=astronaut, lying=astronaut.rotate(90), wood=wood)
    edit_params(**{"normalize.workers": 1, "normalize.resolution": 64, "align.face.max_faceless_share": 0.25})
    done = run_stage("align")
    assert done.returncode == 0, done.stderr
    assert "4 crops by `face`, 1 pictures set aside" in done.stdout
    crops = read_crops(Path("data/crops"))
    assert [crop.key for crop in crops["pair.png"]] == ["pair.png", "pair.png#2"]
    assert error(np.reshape(crops["pair.png"][0].landmarks, (5, 2)) - [160, 2], ASTRONAUT) < LARGEST_ERROR
    assert [crop.faceless for crop in crops["wood.png"]] == [True]
    before = sha256_tree(Path("data/crops"))
    edit_params(**{"normalize.workers": 2})
    assert run_stage("align").returncode == 0
    assert sha256_tree(Path("data/crops")) == before


def test_normalized_faces_are_upright_and_alike(put_in, astronaut, run_stage, edit_params):
    """One face, straight, leaning and lying, becomes nearly one picture; the faceless one is among the rejects."""
    leaning = astronaut.rotate(25, Image.Resampling.BICUBIC, expand=True)
    put_in(one=astronaut, leaning=leaning, lying=astronaut.rotate(90), none=Image.new("RGB", (90, 80), "navy"))
    edit_params(**{"normalize.resolution": 64, "normalize.duplicate_bits": None, "normalize.holdout": 0.5})
    for name in ("align", "normalize"):
        done = run_stage(name)
        assert done.returncode == 0, done.stderr
    rejects = json.loads(Path("data/images/rejects.json").read_text())
    assert rejects["none.png"].startswith("no face: the best confidence found is 0.00")
    dataset = ImageDataset(Path("data/images"))
    straight, *others = (dataset.pixels[position].astype(float) for position in range(len(dataset)))
    middle = slice(16, 48)
    assert len(others) == 2
    for other in others:
        assert np.abs(other - straight)[middle, middle].mean() < 8


def refused(done, code: int, *words: str) -> None:
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert (done.returncode, len(lines)) == (code, 1), done.stdout + done.stderr
    for word in words:
        assert word in lines[0]
    assert not Path("data/crops").exists()


def test_pictures_without_faces_stop_the_stage_by_their_share(put_in, astronaut, run_stage, edit_params):
    blank, thin = Image.new("RGB", (300, 200), (9, 90, 200)), Image.new("RGB", (2000, 3))
    put_in(one=astronaut, blank=blank, thin=thin, torn=b"no picture")
    edit_params(**{"data.max_reject_share": 0.5, "align.face.max_faceless_share": 0.1})
    refused(run_stage("align"), 2, "pictures show no face, more than align.face.max_faceless_share 0.1: blank.png")
    edit_params(**{"data.max_reject_share": 0.2, "align.face.max_faceless_share": 0.5})
    refused(run_stage("align"), 2, "pictures are unreadable, more than data.max_reject_share 0.2: ", "torn.png")
    put_in(blank=blank)
    edit_params(**{"align.face.max_faceless_share": 1.0})
    refused(run_stage("align"), 2, "none of 1 pictures is left, such as blank.png: no face")


def test_small_faces_are_left_out(put_in, astronaut, run_stage, edit_params):
    put_in(one=astronaut)
    edit_params(**{"align.face.min_eye_distance": 60, "align.face.max_faceless_share": 0.5})
    reason = "one.png: no face is large enough: eyes are 4"
    refused(run_stage("align"), 2, "1 of 1 pictures show no face", reason, "align.face.min_eye_distance is 60")


def test_weights_that_cannot_be_fetched_may_come_later(put_in, astronaut, run_stage, tmp_path):
    put_in(one=astronaut)
    nowhere = {"IMAGE_FOUNDRY_CACHE": str(tmp_path / "cache"), "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}
    refused(run_stage("align", **nowhere), 2, "facenet-pytorch could not be fetched; is the network there?")
    assert json.loads(Path(".work/last/align.json").read_text())["retryable"] is True


def test_other_modes_need_no_weights(put_in, astronaut, run_stage, edit_params, tmp_path):
    put_in(one=astronaut)
    edit_params(**{"align.mode": "center"})
    nowhere = {"IMAGE_FOUNDRY_CACHE": str(tmp_path / "cache"), "PIP_NO_INDEX": "1"}
    assert run_stage("align", **nowhere).returncode == 0


@pytest.mark.parametrize("damage", ["cut", "empty", "absent member", "other network", "cut member"])
def test_damaged_weights_are_refused(wheel, tmp_path, damage):
    path = tmp_path / wheel.name
    with zipfile.ZipFile(wheel) as archive:
        members = {name: archive.read(name) for name in archive.namelist() if name.endswith(".pt")}
    first = "facenet_pytorch/data/pnet.pt"
    if damage == "absent member":
        del members[first]
    elif damage == "other network":
        members[first] = members["facenet_pytorch/data/onet.pt"]
    elif damage == "cut member":
        members[first] = members[first][:-1]
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    if damage in ("cut", "empty"):
        path.write_bytes(path.read_bytes()[: 40_000 if damage == "cut" else 0])
    with pytest.raises(
        InputError, match=rf"{wheel.name} holds no {first}; delete it|{first} in .* has sha256 .* expected "
    ):
        build(path)


def test_the_networks_are_the_published_ones(detector):
    """Sizes of the outputs, and nothing in them is trained here."""
    probability, offsets = detector.proposal(torch.zeros(1, 3, 12, 12))
    assert (probability.shape, offsets.shape) == ((1, 1, 1), (1, 4, 1, 1))
    assert [tuple(part.shape) for part in detector.refinement(torch.zeros(2, 3, 24, 24))] == [(2,), (2, 4)]
    assert [tuple(part.shape) for part in detector.output(torch.zeros(2, 3, 48, 48))] == [(2,), (2, 4), (2, 2, 5)]
    assert sum(p.numel() for network in detector for p in network.parameters()) == 6_632 + 100_178 + 389_040
    assert not any(p.requires_grad for network in detector for p in network.parameters())
