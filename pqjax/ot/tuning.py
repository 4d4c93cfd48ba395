"""Sizes that shape frames: how much travels, or is worked on, at a time. Both parties must agree on them."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Tuning:
    chunk_ots: int = 1 << 16
    product_elements: int = 1 << 20
    tile_elements: int = 1 << 17
    stream_above: int = 1 << 25
