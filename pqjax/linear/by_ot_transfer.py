"""Sums of products by OT: one side offers numbers, the bits of the other choose.

Both halves walk bit positions, and in each the messages of a layout. For bit i of the choices a
message's elements have L - i bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import UInt, UInt8

from pqjax.linear.by_ot_layout import Layout, Piece, Tile
from pqjax.ot.correlations import pad_blocks, pad_words, rows_receive, rows_send
from pqjax.protocols.party import Party
from pqjax.ring import Ring, pack, unpack


def offer(
    party: Party,
    layout: Layout,
    x: UInt[np.ndarray, " *x"],
    ring: Ring,
    bits: int,
    top_negative: bool = False,
) -> UInt[np.ndarray, " *sums"]:
    """Offers numbers to the other side's choices, by correlated OT.

      1. chooser -> offerer   its bits, as choices of `bits` times layout.ots OTs.
      2. offerer -> chooser   k0 + x - k1 for every product, of L - i bits for bit i.

    Args:
      party: this party.
      layout: of one bit position.
      x: the numbers, elements of `ring`, as the layout has them.
      ring: of the result, of L bits.
      bits: positions i of the choices.
      top_negative: the last position counts -2^i, as in two's complement.

    Returns:
      Shape layout.sums: own share of the sums of 2^i b_i x.
    """
    share = np.zeros(layout.sums, ring.dtype)
    for i, part, tile, zero, one in _offers(party, layout, ring, bits):
        combine = np.subtract if top_negative and i == bits - 1 else np.add
        sent = np.empty(tile.elements, part.dtype)
        for piece, offered in _split(tile, sent):
            key = zero[piece.words]
            combine(key, _carried(x, piece, part), out=offered)
            np.subtract(offered, one[piece.words], out=offered)
            _accumulate(share, piece, -key.sum(2, dtype=part.dtype), i)
        _send(party, sent, part)
    return ring.reduce(share)


def choose(
    party: Party, layout: Layout, choices: UInt8[np.ndarray, " bits *ots"], ring: Ring
) -> UInt[np.ndarray, " *sums"]:
    """The other half of `offer`: the bits that choose."""
    share = np.zeros(layout.sums, ring.dtype)
    for i, tile, keys, chosen, sent in _answers(party, layout, choices, ring):
        for piece, offered in _split(tile, sent):
            got = chosen[piece.words] * offered
            np.add(got, keys[piece.words], out=got)
            _accumulate(share, piece, got.sum(2, dtype=got.dtype), i)
    return ring.reduce(share)


def offer_if(
    party: Party,
    layout: Layout,
    x: UInt[np.ndarray, " *x"],
    flags: UInt8[np.ndarray, " *ots"],
    ring: Ring,
) -> UInt[np.ndarray, " *sums"]:
    """Offers numbers that count where an XOR-shared flag is 1, by chosen OT.

      1. chooser -> offerer   its share of the flags, as choices.
      2. offerer -> chooser   (f ^ c) x - m for c = 0 and c = 1: 2 L bits for every product.

    Args:
      party: this party.
      layout: of the flags.
      x: the numbers, elements of `ring`, as the layout has them.
      flags: own share.
      ring: of the result, of L bits.

    Returns:
      Shape layout.sums: own share of the sums of f x.
    """
    share = np.zeros(layout.sums, ring.dtype)
    for _, _, tile, zero, one in _offers(party, layout, ring, 1):
        flag = _spread(flags, tile, ring)
        sent = np.empty(2 * tile.elements, ring.dtype)
        for piece, both in _split(tile, sent, 2):
            mask = party.randomness.elements(math.prod(piece.shape), ring).reshape(piece.shape)
            number = _carried(x, piece, ring)
            taken = flag[piece.words] * number
            both[0] = (taken - mask) ^ zero[piece.words]
            both[1] = (number - taken - mask) ^ one[piece.words]
            _accumulate(share, piece, mask.sum(2, dtype=ring.dtype), 0)
        _send(party, sent, ring)
    return ring.reduce(share)


def choose_if(
    party: Party, layout: Layout, flags: UInt8[np.ndarray, " *ots"], ring: Ring
) -> UInt[np.ndarray, " *sums"]:
    """The other half of `offer_if`: own share of the flags."""
    share = np.zeros(layout.sums, ring.dtype)
    for _, tile, keys, chosen, sent in _answers(party, layout, flags[None], ring, 2):
        for piece, both in _split(tile, sent, 2):
            got = np.where(chosen[piece.words], both[1], both[0]) ^ keys[piece.words]
            _accumulate(share, piece, got.sum(2, dtype=ring.dtype), 0)
    return ring.reduce(share)


def _offers(
    party: Party, layout: Layout, ring: Ring, bits: int
) -> Iterator[tuple[int, Ring, Tile, np.ndarray, np.ndarray]]:
    """The offering side's messages to be: bit position, its ring, tile, keys of both messages."""
    rows = rows_send(party, bits * math.prod(layout.ots)).reshape(bits, *layout.ots, 2)
    for i in range(bits):
        part = Ring(ring.bits - i)
        for tile in layout.tiles:
            own = rows[i][tile.ots].reshape(-1, 2)
            zero, one = party.sender.pads(own, pad_blocks(tile.words, part))
            yield i, part, tile, _arranged(zero, tile, part), _arranged(one, tile, part)


def _answers(
    party: Party, layout: Layout, choices: np.ndarray, ring: Ring, each: int = 1
) -> Iterator[tuple[int, Tile, np.ndarray, np.ndarray, np.ndarray]]:
    """The choosing side's messages, `each` elements a product: bit position, tile, keys, choices."""
    bits = len(choices)
    rows = rows_receive(party, choices.reshape(-1)).reshape(bits, *layout.ots, 2)
    counts = [each * tile.elements for tile in layout.tiles]
    messages = party.messenger.receive_each(
        [n * (ring.bits - i) for i in range(bits) for n in counts]
    )
    for i in range(bits):
        part = Ring(ring.bits - i)
        for tile, n in zip(layout.tiles, counts, strict=True):
            pads = party.receiver.pads(
                rows[i][tile.ots].reshape(-1, 2), pad_blocks(tile.words, part)
            )
            sent = unpack(next(messages), n, part.bits)
            yield i, tile, _arranged(pads, tile, part), _spread(choices[i], tile, part), sent


def _arranged(pads: np.ndarray, tile: Tile, ring: Ring) -> np.ndarray:
    return tile.arranged(pad_words(pads, ring))


def _spread(bits: np.ndarray, tile: Tile, ring: Ring) -> np.ndarray:
    """A bit of each of a tile's OTs, like all of its words."""
    own = bits[tile.ots].reshape(-1, 1).astype(ring.dtype)
    return tile.arranged(np.broadcast_to(own, (len(own), tile.words)))


def _carried(x: np.ndarray, piece: Piece, ring: Ring) -> np.ndarray:
    return x[piece.carried].reshape(piece.spread).astype(ring.dtype, copy=False)


def _split(tile: Tile, sent: np.ndarray, each: int = 0) -> Iterator[tuple[Piece, Any]]:
    """Pieces of a tile with theirs of a message: one array, or `each` of them."""
    at = 0
    for piece in tile.pieces:
        shape = (each, *piece.shape) if each else piece.shape
        n = math.prod(shape)
        yield piece, sent[at : at + n].reshape(shape)
        at += n


def _send(party: Party, sent: np.ndarray, ring: Ring) -> None:
    np.bitwise_and(sent, ring.mask, out=sent)
    party.messenger.send(pack(sent, ring.bits), sent.size * ring.bits)


def _accumulate(share: np.ndarray, piece: Piece, sums: np.ndarray, shift: int) -> None:
    """Adds sums * 2^shift; what lies above the ring is cut at the end."""
    target = share[piece.sums]
    target += (sums.astype(share.dtype) << share.dtype.type(shift)).reshape(target.shape)
