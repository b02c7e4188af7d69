"""Classes and prompts that a conditional generator is asked for, classes in the data's order, whatever its own is."""

import numpy as np

from stages.evaluate.conditioning import (
    NO_CAPTIONS,
    captions_of,
    conditioned,
    conditions_in_turn,
    evenly,
    in_turn,
    labels_by,
)
from stages.generators.interface import Asked, Capabilities, Generator, Request
from stages.metrics.features import PictureSet


class Painter(Generator):
    """Draws the number of the class that it is asked for, or zero."""

    def __init__(self, *class_names: str) -> None:
        self.capabilities = Capabilities("painter", (2,), 8, 3, class_names)
        self.identity = {}

    def generate(self, request: Request) -> np.ndarray:
        value = request.extra.get("label", np.zeros(len(request.latent)))
        return np.broadcast_to(value[:, None, None, None], (len(value), 3, 8, 8)).astype(np.float32)


def reference(labels: list[int], *names: str) -> PictureSet:
    return PictureSet("reference", len(labels), lambda: iter(()), labels=np.array(labels), class_names=names)


def test_labels_are_positions_in_the_data_s_class_names() -> None:
    generator, labels, notes = conditioned(
        Painter("owl", "cat"), range(10, 50), reference([0, 0, 0, 1], "cat", "owl"), 0
    )
    assert labels is not None and notes == []
    assert np.bincount(labels).tolist() == [30, 10]  # three cats for each owl
    drawn = np.concatenate(list(generator.draw(range(10, 50), 7)))[:, 0, 0, 0].astype(int)
    assert (np.array(["owl", "cat"])[drawn] == np.array(["cat", "owl"])[labels]).all()


def test_a_class_that_the_model_lacks_is_noted() -> None:
    _, labels, notes = conditioned(Painter("cat"), range(4), reference([0, 1], "cat", "owl"), 0)
    assert labels is not None and labels.tolist() == [0] * 4
    assert len(notes) == 1 and "cannot draw owl" in notes[0]


def test_labels_without_a_counterpart_are_none() -> None:
    assert labels_by(("a", "b"), ("b", "x", "a"), np.array([0, 1, 2, -1])).tolist() == [1, -1, 0, -1]


def test_generators_without_classes_stay_as_they_are() -> None:
    plain = Painter()
    assert conditioned(plain, range(4), reference([0], "cat"), 0) == (plain, None, [])
    assert in_turn(plain, range(4)) is plain
    turned = np.concatenate(list(in_turn(Painter("a", "b"), range(5)).draw(range(5), 2)))[:, 0, 0, 0]
    assert turned.tolist() == [0, 1, 0, 1, 0]


class Writer(Generator):
    """Takes prompts; notes its requests."""

    identity: dict[str, str] = {}

    def __init__(self) -> None:
        self.capabilities = Capabilities("writer", (2,), 8, 3, prompt=True, guidance=True)
        self.seen: list[Request] = []

    def generate(self, request: Request) -> np.ndarray:
        self.seen.append(request)
        return np.zeros((len(request.latent), 3, 8, 8), np.float32)

    def prompts(self) -> list[str]:
        return [prompt for request in self.seen for prompt in request.prompts]


CAPTIONS = [f"picture {number}" for number in range(10)]


def test_prompts_are_the_captions_shuffled_by_seed_all_before_any_repeats() -> None:
    drawn = []
    for seed, batch in ((0, 7), (0, 64), (1, 64)):
        writer = Writer()
        generator, labels, notes = conditioned(writer, range(5, 28), reference([0], "cat"), seed, CAPTIONS)
        assert labels is None and notes == []
        list(generator.draw(range(5, 28), batch))
        drawn.append(writer.prompts())
    assert drawn[0] == drawn[1] != drawn[2]
    first, second, rest = drawn[0][:10], drawn[0][10:20], drawn[0][20:]
    assert sorted(first) == CAPTIONS and first != CAPTIONS
    assert second == first and rest == first[:3]


def test_a_reference_without_captions_gives_the_empty_prompt_and_a_note() -> None:
    writer = Writer()
    generator, _, notes = conditioned(writer, range(3), reference([0], "cat"), 0)
    list(generator.draw(range(3)))
    assert writer.prompts() == ["", "", ""] and notes == [NO_CAPTIONS]


def test_sample_sheets_show_captions_evenly_apart() -> None:
    writer = Writer()
    list(in_turn(writer, range(4), CAPTIONS).draw(range(4), 3))
    assert writer.prompts() == ["picture 0", "picture 2", "picture 5", "picture 7"]
    list(in_turn(writer, range(2)).draw(range(2)))
    assert writer.prompts()[4:] == ["", ""]
    assert evenly(2, 5) == [0, 0, 0, 1, 1]  # fewer than are asked for repeat


def test_guidance_and_negative_prompts_go_with_the_wanted_prompts() -> None:
    writer = Writer()
    generator, _, _ = conditioned(writer, range(4), reference([0], "cat"), 0, CAPTIONS)
    list(generator.draw(range(4), asked=Asked(negative="blur", guidance=3.0)))
    (request,) = writer.seen
    assert (request.negative, request.guidance) == ("blur", 3.0)
    assert set(request.prompts) < set(CAPTIONS)


def test_rows_without_a_caption_are_left_out() -> None:
    rows: list[dict] = [{"caption": "a cat"}, {"caption": None}, {"caption": "  "}, {}, {"caption": "an owl"}]
    assert captions_of(rows) == ["a cat", "an owl"]


def test_conditions_are_taken_by_position() -> None:
    both = conditions_in_turn(Capabilities("both", (2,), 8, 3, ("a", "b", "c"), prompt=True), 4, CAPTIONS)
    taken = both.take([3, 1, 1])
    assert taken.labels is not None and taken.labels.tolist() == [0, 1, 1]
    assert taken.prompts == ("picture 7", "picture 2", "picture 2")
    assert len(both) == 4 and len(conditions_in_turn(Painter().capabilities, 4)) == 0
