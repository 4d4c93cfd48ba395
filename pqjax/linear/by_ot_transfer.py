"""Sums of products by OT: one side offers numbers, the bits of the other choose.

Both halves walk bit positions, and in each the messages of a layout. For bit i of the choices a
message's elements have L - i bits.
"""

import math
from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from pqjax.linear.by_ot_layout import Laid, Layout, Piece, Tile
from pqjax.ot.correlations import pad_blocks, pad_words, rows_receive, rows_send
from pqjax.protocols.party import Party
from pqjax.ring import Ring, kernel, pack, unpack

Bits = UInt8[np.ndarray, " *ots"]


def _offer(zero, x, one, mask, view):
    """Offerer: k0 + x - k1 in the ring that `mask` keeps, and minus the sum of k0."""
    key = view(zero)
    return (key + x - view(one)) & mask, -key.sum(2, dtype=key.dtype)


def _gather(choice, key, offered, view):
    """Chooser: the sum of k + c t."""
    return (view(key) + view.of_bits(choice, key.dtype) * offered).sum(2, dtype=key.dtype)


def _offer_if(zero, x, one, flag, blind, mask, view):
    """Offerer: (f ^ c) x - m for c = 0 and 1, each under its key, and the sum of m."""
    taken = view.of_bits(flag, zero.dtype) * x
    both = (taken - blind) ^ view(zero), (x - taken - blind) ^ view(one)
    return jnp.stack(both) & mask, blind.sum(2, dtype=blind.dtype)


def _gather_if(choice, key, both, view):
    """Chooser: the sum of what it opens."""
    taken = jnp.where(view.of_bits(choice, bool), both[1], both[0])
    return (taken ^ view(key)).sum(2, dtype=key.dtype)


# Compiled for every shape and dtype, not for every width: rings differ by their mask alone.
_offered, _gathered = kernel(_offer, static=("view",)), kernel(_gather, static=("view",))
_offered_if = kernel(_offer_if, static=("view",))
_gathered_if = kernel(_gather_if, static=("view",))


def offer(party: Party, layout: Layout, x: Laid, ring: Ring, bits: int, top_negative: bool) -> Laid:
    """Offers numbers to the other side's choices, by correlated OT.

      1. chooser -> offerer   its bits, as choices of `bits` times layout.ots OTs.
      2. offerer -> chooser   k0 + x - k1 for every product, of L - i bits for bit i.

    Of numbers x of the ring of L bits, laid out for a bit position, it makes own share of the sums of
    2^i b_i x, of shape layout.sums. Choices have `bits` positions i; if `top_negative` the last one
    counts -2^i, as in two's complement.
    """
    share = np.zeros(layout.sums, ring.dtype)
    negative = ring.neg(x) if top_negative else x
    for i, part, tile, zero, one in _offers(party, layout, ring, bits):
        numbers, mask, sent = negative if i == bits - 1 else x, part.dtype.type(part.mask), []
        for piece in tile.pieces:
            carried = _carried(numbers, piece, part)
            offered, own = _offered(zero, carried, one, mask, view=piece.view)
            sent.append(np.asarray(offered).reshape(-1))
            _accumulate(share, piece, np.asarray(own), i)
        _send(party, sent, part)
    return ring.reduce(share)


def choose(party: Party, layout: Layout, choices: Bits, ring: Ring) -> Laid:
    """The other half of `offer`: the bits that choose, (bits, *layout.ots)."""
    share = np.zeros(layout.sums, ring.dtype)
    for i, tile, keys, chosen, sent in _answers(party, layout, choices, ring):
        for piece, (offered,) in _split(tile, sent):
            got = _gathered(chosen, keys, offered, view=piece.view)
            _accumulate(share, piece, np.asarray(got), i)
    return ring.reduce(share)


def offer_if(party: Party, layout: Layout, x: Laid, flags: Bits, ring: Ring) -> Laid:
    """Offers numbers that count where XOR-shared flags are 1, by chosen OT.

      1. chooser -> offerer   its share of the flags, as choices.
      2. offerer -> chooser   (f ^ c) x - m for c = 0 and c = 1: 2 L bits for every product.

    The flags are of shape layout.ots; else as for `offer`. Returns a share of the sums of (f ^ c) x.
    """
    share = np.zeros(layout.sums, ring.dtype)
    mask = ring.dtype.type(ring.mask)
    for _, _, tile, zero, one in _offers(party, layout, ring, 1):
        flag, sent = flags[tile.ots].reshape(-1, 1), []
        for piece in tile.pieces:
            blind = party.randomness.elements(math.prod(piece.shape), ring).reshape(piece.shape)
            carried = _carried(x, piece, ring)
            both, own = _offered_if(zero, carried, one, flag, blind, mask, view=piece.view)
            sent.append(np.asarray(both).reshape(-1))
            _accumulate(share, piece, np.asarray(own), 0)
        _send(party, sent, ring)
    return ring.reduce(share)


def choose_if(party: Party, layout: Layout, flags: Bits, ring: Ring) -> Laid:
    """The other half of `offer_if`."""
    share = np.zeros(layout.sums, ring.dtype)
    for _, tile, keys, chosen, sent in _answers(party, layout, flags[None], ring, 2):
        for piece, both in _split(tile, sent):
            got = _gathered_if(chosen, keys, both, view=piece.view)
            _accumulate(share, piece, np.asarray(got), 0)
    return ring.reduce(share)


def _offers(
    party: Party, layout: Layout, ring: Ring, bits: int
) -> Iterator[tuple[int, Ring, Tile, Laid, Laid]]:
    """The messages to offer: bit position, its ring, tile, keys of both messages."""
    rows = rows_send(party, bits * math.prod(layout.ots)).reshape(bits, *layout.ots, 2)
    for i in range(bits):
        part = Ring(ring.bits - i)
        for tile in layout.tiles:
            own = rows[i][tile.ots].reshape(-1, 2)
            pads = party.sender.pads(own, pad_blocks(tile.words, part))
            zero, one = (pad_words(p, part) for p in pads)
            yield i, part, tile, zero, one


def _answers(
    party: Party, layout: Layout, choices: Bits, ring: Ring, each: int = 1
) -> Iterator[tuple[int, Tile, Laid, Laid, Laid]]:
    """The messages that come, `each` elements a product: bit position, tile, keys, choices, elements."""
    bits, counts = len(choices), [each * tile.elements for tile in layout.tiles]
    rows = rows_receive(party, choices.reshape(-1)).reshape(bits, *layout.ots, 2)
    sizes = [n * (ring.bits - i) for i in range(bits) for n in counts]
    messages = party.messenger.receive_each(sizes)
    for i in range(bits):
        part = Ring(ring.bits - i)
        for tile, n in zip(layout.tiles, counts, strict=True):
            own = rows[i][tile.ots].reshape(-1, 2)
            pads = party.receiver.pads(own, pad_blocks(tile.words, part))
            sent = unpack(next(messages), n, part.bits)
            yield i, tile, pad_words(pads, part), choices[i][tile.ots].reshape(-1, 1), sent


def _carried(x: Laid, piece: Piece, ring: Ring) -> Laid:
    return np.ascontiguousarray(x[piece.carried], ring.dtype)


def _split(tile: Tile, sent: Laid) -> Iterator[tuple[Piece, Laid]]:
    """The pieces of a tile and what a message holds of each: one or two arrays of its shape."""
    each, at = sent.size // tile.elements, 0
    for piece in tile.pieces:
        n = each * math.prod(piece.shape)
        yield piece, sent[at : at + n].reshape(each, *piece.shape)
        at += n


def _send(party: Party, parts: list[Laid], ring: Ring) -> None:
    sent = parts[0] if len(parts) == 1 else np.concatenate(parts)
    party.messenger.send(pack(sent, ring.bits), sent.size * ring.bits)


def _accumulate(share: Laid, piece: Piece, sums: Laid, shift: int) -> None:
    """Adds sums * 2^shift; what lies above the ring is cut at the end."""
    share[piece.sums] += sums.astype(share.dtype) << share.dtype.type(shift)
