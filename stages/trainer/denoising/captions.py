"""The token embeddings of training captions, encoded once where they fit into memory."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from stages.errors import GateError, InputError
from stages.generators.diffusion.text import TextEncoder

HALF_BYTES = 2
REMEDY = "add metadata.jsonl or metadata.csv with captions"


class CaptionEmbeddings:
    """Token embeddings by the position of a picture; each distinct caption is encoded once.

    Embeddings are rounded to float16, in which they are kept on the CPU if they fit into `limit_bytes`; else a caption
    is encoded at each call. The encoder's network moves to the device and stays there; it sees batches of one fixed
    shape, so that a caption gives the same bits whatever stands beside it.

    Raises:
        InputError: pictures have no caption, or a caption has too many tokens.
        GateError: embeddings are not finite in float16.
    """

    def __init__(
        self,
        captions: Sequence[str | None],
        encoder: TextEncoder,
        device: torch.device | str,
        batch: int = 64,
        limit_bytes: int = 2 << 30,
        keys: Sequence[str] = (),
    ) -> None:
        present = check_captions(captions, keys)
        self.encoder, self.device, self.batch = encoder, torch.device(device), batch
        self._distinct, entries = _distinct_of(["", *present])
        self._empty, self._entries = entries[:1], entries[1:]
        encoder.network.to(self.device)
        encoder.tokenizer.encode(self._distinct)  # too long a caption is told before any is encoded
        self.stored_bytes = len(self._distinct) * encoder.length * encoder.width * HALF_BYTES
        self._store: tuple[Tensor, Tensor] | None = None
        if self.stored_bytes <= limit_bytes:
            self._store = self._encode(np.arange(len(self._distinct)))

    def rows(self, positions: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return embeddings, float32 (N, length, width), and masks, bool (N, length), of pictures, on the device."""
        return self._rows(self._entries[positions])

    def empty(self) -> tuple[Tensor, Tensor]:
        """Return the embedding of the empty prompt, float32 (1, length, width), and its mask, bool (1, length)."""
        return self._rows(self._empty)

    def _rows(self, entries: np.ndarray) -> tuple[Tensor, Tensor]:
        if self._store is None:
            asked, entries = np.unique(entries, return_inverse=True)
            embeddings, masks = self._encode(asked)
        else:
            embeddings, masks = self._store
        chosen = torch.from_numpy(entries)
        return embeddings[chosen].to(self.device).float(), masks[chosen].to(self.device)

    def _encode(self, entries: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return embeddings, float16 (N, length, width), and masks, bool (N, length), both on the CPU."""
        shape = (len(entries), self.encoder.length)
        embeddings = torch.empty((*shape, self.encoder.width), dtype=torch.float16)
        masks = torch.empty(shape, dtype=torch.bool)
        for start in range(0, len(entries), self.batch):
            part = slice(start, start + self.batch)
            captions = [self._distinct[entry] for entry in entries[part]]
            filled = captions + [""] * (self.batch - len(captions))  # another shape takes other kernels, other bits
            found, mask = self.encoder.embed(filled, self.device)
            embeddings[part], masks[part] = found[: len(captions)].cpu(), mask[: len(captions)].cpu()
        if not torch.isfinite(embeddings).all():
            raise GateError("the text encoder's embeddings are not finite in float16; expected values within 65504")
        return embeddings, masks


def check_captions(captions: Sequence[str | None], keys: Sequence[str] = ()) -> list[str]:
    """Return captions of which none is missing; `keys` name the pictures in the message.

    Raises:
        InputError: how many are missing or blank, and the first of them.
    """
    missing = [row for row, caption in enumerate(captions) if not (caption and caption.strip())]
    if missing:
        first = keys[missing[0]] if keys else f"picture {missing[0]}"
        raise InputError(
            f"{len(missing)} of {len(captions)} training pictures have no caption, which condition: text needs; "
            f"first: {first}; {REMEDY}"
        )
    return [caption for caption in captions if caption]


def _distinct_of(captions: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Return the distinct captions in order, and for each caption its place among them, int64 (N,)."""
    distinct = sorted(set(captions))
    places = {caption: place for place, caption in enumerate(distinct)}
    return distinct, np.array([places[caption] for caption in captions], dtype=np.int64)
