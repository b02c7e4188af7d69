"""Walks an ONNX model's protobuf messages: no corner (functions, sub-graphs, sparse tensors) is left out."""

from collections.abc import Iterator
from typing import Any


def messages(root: Any) -> Iterator[Any]:
    """Yield a protobuf message and all messages inside it, at any depth."""
    yield root
    for field, value in root.ListFields():
        if field.message_type is None:
            continue
        for inner in [value] if hasattr(value, "ListFields") else value:
            yield from messages(inner)
