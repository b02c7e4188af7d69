"""Classes that a conditional generator is asked for, in the data's order, whatever its own is."""

import numpy as np

from stages.evaluate.conditioning import conditioned, in_turn, labels_by
from stages.generators.interface import Capabilities, Generator, Request
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
