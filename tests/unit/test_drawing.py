"""Wishes of the draw command: what a generator is asked for, what is refused, and what is told."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stages.errors import InputError
from stages.generators.drawing import Wishes, check_request, draw, label_of
from stages.generators.interface import Capabilities, Generator, Request

NAMES = ("zero", "cat", "1")


class Asked(Generator):
    """Takes whatever its capabilities say; notes its requests and what it was resampled to."""

    identity: dict[str, str] = {}

    def __init__(self, **takes: Any) -> None:
        self.capabilities = Capabilities("asked", (2,), 8, 3, **takes)
        self.seen: list[Request] = []
        self.ways: list[tuple[int | None, str | None]] = []

    def generate(self, request: Request) -> np.ndarray:
        self.seen.append(request)
        return np.zeros((len(request.latent), 3, 8, 8), np.float32)

    def resampled(self, steps: int | None, sampler: str | None) -> "Asked":
        self.ways.append((steps, sampler))
        return self


def asked(generator: Asked, tmp_path: Path, count: int = 3, **wishes: Any) -> tuple[list[Request], str]:
    """Return the requests that a generator gets for wishes, and what is told of them."""
    wanted = Wishes(**wishes)
    out = tmp_path / "sheet.png"
    check_request(4, count, out, wanted)
    drawing, found = wanted.applied(generator)
    draw(drawing, 4, count, out, found)
    assert Image.open(out).size[0] > 8
    return generator.seen, ", ".join(wanted.told(found, generator.capabilities))


@pytest.mark.parametrize(("text", "number"), [("cat", 1), ("0", 0), ("zero", 0), ("2", 2), ("1", 2)])
def test_a_class_is_named_or_numbered_and_its_name_goes_first(text: str, number: int, tmp_path: Path) -> None:
    (request,), told = asked(Asked(class_names=NAMES), tmp_path, label=text)
    assert request.extra["label"].tolist() == [number] * 3
    assert request.extra["label"].dtype == np.int64
    assert told == f"class {NAMES[number]}"


def test_without_a_label_classes_take_turns_by_seed(tmp_path: Path) -> None:
    (request,), told = asked(Asked(class_names=NAMES), tmp_path)
    assert request.extra["label"].tolist() == [1, 2, 0] and told == ""


def test_prompts_guidance_and_steps_reach_the_generator(tmp_path: Path) -> None:
    generator = Asked(prompt=True, guidance=True, steps=20)
    wishes: dict[str, Any] = {
        "prompt": "a \x1b cat",
        "negative": "blur",
        "guidance": 7.5,
        "steps": 5,
        "sampler": "ddim",
    }
    (request,), told = asked(generator, tmp_path, **wishes)
    assert list(request.prompts) == ["a \x1b cat"] * 3
    assert (request.negative, request.guidance) == ("blur", 7.5)
    assert generator.ways == [(5, "ddim")]
    assert told == r"prompt 'a \x1b cat', negative prompt 'blur', guidance 7.5, sampler ddim, 5 steps"


def test_a_default_guidance_is_enough_for_a_negative_prompt(tmp_path: Path) -> None:
    (request,), _ = asked(Asked(prompt=True, guidance=True, default_guidance=3.0), tmp_path, negative="blur")
    assert (request.negative, request.guidance) == ("blur", None)


@pytest.mark.parametrize(
    ("takes", "wishes", "words"),
    [
        ({"class_names": NAMES}, {"label": "dog"}, "--label is dog; expected 0 to 2 or one of zero, cat, 1"),
        ({"class_names": NAMES}, {"label": "3"}, "--label is 3; expected 0 to 2"),
        ({"class_names": NAMES}, {"label": "-1"}, "--label is -1; expected 0 to 2"),
        ({}, {"label": "cat"}, "--label is cat, but this asked model has no classes"),
        ({"class_names": NAMES}, {"prompt": "x"}, "a prompt was given, but this asked model takes none"),
        ({"prompt": True}, {"guidance": 2.0}, "guidance 2 was asked for, but this asked model takes none"),
        ({"prompt": True}, {"negative": "x"}, "--negative-prompt says nothing without guidance; this model takes none"),
        ({"prompt": True, "guidance": True}, {"negative": "x"}, "give --guidance above 1"),
        ({}, {"steps": 0}, "--steps is 0; expected 1 or more"),
        ({"guidance": True}, {"guidance": float("inf")}, "--guidance is inf; expected a number of 0 or more"),
    ],
)
def test_what_a_model_does_not_take_is_refused_before_anything_is_drawn(
    takes: dict[str, Any], wishes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    generator = Asked(**takes)
    with pytest.raises(InputError) as caught:
        asked(generator, tmp_path, **wishes)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert generator.seen == [] and list(tmp_path.iterdir()) == []


def test_no_wish_is_no_label() -> None:
    assert label_of(None, Asked(class_names=NAMES).capabilities) is None
