"""Convolution in groups by oblivious transfer: depthwise layers and their kin.

A group has few outputs, so the matrix of patches would hold every pixel h w times and every OT would
carry next to nothing. Here pixels stay pixels. Kernel position (i, j), a *tap*, reads a rectangle of the
image for a rectangle of outputs; what lies in the padding is no use and costs nothing.

    product   choice bits   OTs             vector                    bits sent
    weights   W             T K c w_bits    a tap's pixels, of L - i  K c [T w_bits * 128 + U S(w_bits)]
    pixels    the pixel     H W C x_bits    its uses, of L - i        H W C x_bits * 128 + K c U S(n)

with T taps that read anything, c = C / groups inputs of a group, K outputs, U pixels read by all
taps together (at most h w H' W'), and S(n) = n L - n (n - 1) / 2 as in `linear_ot` for the
n bits walked. Extension and wraps are per pixel, too: a pixel's one OT of "Wrap & MUX" carries all
its uses.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator

import numpy as np

from pqjax.ot.correlations import pad_blocks, pad_words, rows_receive, rows_send
from pqjax.ot.endpoint import Scheme
from pqjax.protocols.compare import known_wrap_bit, known_wrap_cost, less_than_cost, wrap_bit
from pqjax.protocols.linear_ot import VARIANTS, Product
from pqjax.protocols.party import Party
from pqjax.protocols.resize import Forms, extend, extend_cost
from pqjax.ring import Ring, conv, pack, unpack
from pqjax.wire.cost import NOTHING, Cost, message

_TILE = 1 << 20  # elements of a message, as in `linear_ot`

Rectangle = tuple[slice, slice]


@dataclasses.dataclass(frozen=True)
class Tap:
    """A position of the kernel: the pixels it reads, and the outputs it reads them for.

    Attributes:
      at: row and column in the kernel.
      slot: its place among the uses that a pixel can have.
      pixels: rows and columns of the image, in steps of the stride.
      outputs: rows and columns of the result, as many.
      area: how many.
    """

    at: tuple[int, int]
    slot: int
    pixels: Rectangle
    outputs: Rectangle
    area: int


@dataclasses.dataclass(frozen=True)
class Window:
    """Geometry of a convolution: image, kernel, steps, margins."""

    image: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    dilation: tuple[int, int] = (1, 1)

    @property
    def outputs(self) -> tuple[int, int]:
        """Height and width of the result."""
        high, wide = (
            (self.image[i] + sum(self.padding[i]) - 1 - (self.kernel[i] - 1) * self.dilation[i])
            // self.stride[i]
            + 1
            for i in (0, 1)
        )
        return high, wide

    @property
    def slots(self) -> int:
        """Uses that a pixel can have: taps that never meet in a pixel share a slot."""
        return -(-self.kernel[0] // self._apart[0]) * -(-self.kernel[1] // self._apart[1])

    @property
    def _apart(self) -> tuple[int, int]:
        """How many taps on the next one is that meets a tap in a pixel: some steps of the stride."""
        down, right = (s // math.gcd(s, d) for s, d in zip(self.stride, self.dilation, strict=True))
        return down, right

    def _span(self, axis: int, tap: int) -> tuple[slice, slice, int]:
        """Pixels and outputs of a tap along an axis: output o reads pixel o * step + shift."""
        step, shift = self.stride[axis], tap * self.dilation[axis] - self.padding[axis][0]
        first = max(0, -(shift // step))
        last = min(self.outputs[axis] - 1, (self.image[axis] - 1 - shift) // step)
        n = max(0, last - first + 1)
        begin = first * step + shift
        return slice(begin, begin + n * step, step), slice(first, first + n), n

    @functools.cached_property
    def taps(self) -> tuple[Tap, ...]:
        """Those that read anything, row by row."""
        found = []
        apart = self._apart
        across = -(-self.kernel[1] // apart[1])
        for i in range(self.kernel[0]):
            for j in range(self.kernel[1]):
                down, right = self._span(0, i), self._span(1, j)
                slot = i // apart[0] * across + j // apart[1]
                if down[2] * right[2]:
                    rectangles = (down[0], right[0]), (down[1], right[1])
                    found.append(Tap((i, j), slot, *rectangles, down[2] * right[2]))
        return tuple(found)

    @functools.cached_property
    def _spans(self) -> tuple[list[int], list[int]]:
        """How many rows a row of the kernel reads, and columns a column: a tap reads their product."""
        down, right = ([self._span(i, tap)[2] for tap in range(self.kernel[i])] for i in (0, 1))
        return down, right

    @property
    def uses(self) -> int:
        """Pixels read by all taps together."""
        down, right = self._spans
        return sum(down) * sum(right)

    @property
    def reading(self) -> int:
        """How many taps there are; a price needs no more of them."""
        down, right = self._spans
        return sum(n > 0 for n in down) * sum(n > 0 for n in right)


@dataclasses.dataclass(frozen=True)
class GroupedProduct:
    """One grouped convolution: what a group multiplies, and where its pixels lie.

    Attributes:
      each: the product of one group as if it were of patches: d1 outputs; formats and variant.
      groups: how many.
      fan_in: input channels of a group.
      window: the geometry.
    """

    each: Product
    groups: int
    fan_in: int
    window: Window

    @property
    def pixels(self) -> int:
        """Elements of the input, all channels."""
        return self.window.image[0] * self.window.image[1] * self.groups * self.fan_in

    @property
    def pairs(self) -> int:
        """Products of a weight and a pixel."""
        return self.groups * self.each.d1 * self.fan_in * self.window.uses

    def tiles(self, area: int) -> Iterator[tuple[slice, slice, slice]]:
        """Cuts (groups, outputs, inputs) into tiles of bearable size if each holds `area` elements."""
        inputs = max(1, min(self.fan_in, _TILE // area))
        outputs = max(1, min(self.each.d1, _TILE // (area * inputs)))
        groups = max(1, min(self.groups, _TILE // (area * inputs * outputs)))
        for g in range(0, self.groups, groups):
            for k in range(0, self.each.d1, outputs):
                for c in range(0, self.fan_in, inputs):
                    yield (
                        slice(g, min(g + groups, self.groups)),
                        slice(k, min(k + outputs, self.each.d1)),
                        slice(c, min(c + inputs, self.fan_in)),
                    )


def _by_group(x: np.ndarray, p: GroupedProduct) -> np.ndarray:
    """An image (H, W, C) as (groups, fan_in, H, W)."""
    planes = np.ascontiguousarray(x.transpose(2, 0, 1))
    return planes.reshape(p.groups, p.fan_in, *p.window.image)


def _kernels(weights: np.ndarray, p: GroupedProduct) -> np.ndarray:
    """(h, w, fan_in, K) weights as (taps, groups, d1, fan_in), only taps that read anything."""
    split = np.asarray(weights).reshape(*p.window.kernel, p.fan_in, p.groups, p.each.d1)
    return np.stack([split[tap.at].transpose(1, 2, 0) for tap in p.window.taps])


def _image(share: np.ndarray, p: GroupedProduct) -> np.ndarray:
    """(groups, d1, H', W') as (H', W', K)."""
    return np.ascontiguousarray(share.reshape(-1, *p.window.outputs).transpose(1, 2, 0))


def _planes(x: np.ndarray, bits: int) -> np.ndarray:
    """Bits of integers, two's complement if negative: (bits, *shape) uint8."""
    unsigned = Ring(bits).reduce(x)
    return np.stack(
        [((unsigned >> unsigned.dtype.type(i)) & 1).astype(np.uint8) for i in range(bits)]
    )


def _add(share: np.ndarray, at: tuple, part: np.ndarray, shift: int) -> None:
    """share[at] += part * 2^shift; what lies above the ring is cut at the end."""
    share[at] += part.astype(share.dtype) << share.dtype.type(shift)


# Choice bits of weights: the client offers, for every tap, what that tap reads.


def _weights_send(party: Party, p: GroupedProduct, x: np.ndarray) -> np.ndarray:
    """The client's half, on its pixels (groups, fan_in, H, W)."""
    ring, taps, walked = Ring(p.each.bits), p.window.taps, p.each.walked
    shape = (walked, len(taps), p.groups, p.each.d1, p.fan_in)
    rows = rows_send(party, int(np.prod(shape))).reshape(*shape, 2)
    share = np.zeros((p.groups, p.each.d1, *p.window.outputs), ring.dtype)
    for i in range(walked):
        part = Ring(ring.bits - i)
        cut = part.reduce(ring.neg(x) if i == walked - 1 else x)  # the top bit counts -2^i
        for t, tap in enumerate(taps):
            read = cut[:, :, *tap.pixels]
            for g, k, c in p.tiles(tap.area):
                own_rows = rows[i, t, g, k, c]
                pads = party.sender.pads(own_rows.reshape(-1, 2), pad_blocks(tap.area, part))
                zero, one = (
                    pad_words(q, part)[:, : tap.area].reshape(*own_rows.shape[:3], -1) for q in pads
                )
                vectors = read[g, None, c].reshape(zero.shape[0], 1, zero.shape[2], -1)
                offered = part.reduce(zero + vectors - one).reshape(-1)
                party.messenger.send(pack(offered, part.bits), offered.size * part.bits)
                own = -zero.sum(2, dtype=part.dtype)
                own = own.reshape(*own.shape[:2], *_sides(tap))
                _add(share, (g, k, *tap.outputs), part.reduce(own), i)
    return ring.reduce(share)


def _weights_receive(party: Party, p: GroupedProduct, weights: np.ndarray) -> np.ndarray:
    """The server's half: takes with the bits of its weights."""
    ring, taps, walked = Ring(p.each.bits), p.window.taps, p.each.walked
    choices = _planes(_kernels(weights, p), walked)
    rows = rows_receive(party, choices.reshape(-1)).reshape(*choices.shape, 2)
    share = np.zeros((p.groups, p.each.d1, *p.window.outputs), ring.dtype)
    tiles = [list(p.tiles(tap.area)) for tap in taps]
    sizes = [
        _count(tile) * tap.area * (ring.bits - i)
        for i in range(walked) for tap, cuts in zip(taps, tiles, strict=True) for tile in cuts
    ]  # fmt: skip
    messages = party.messenger.receive_each(sizes)
    for i in range(walked):
        part = Ring(ring.bits - i)
        for t, tap in enumerate(taps):
            for g, k, c in tiles[t]:
                chosen, own_rows = choices[i, t, g, k, c], rows[i, t, g, k, c]
                pads = party.receiver.pads(own_rows.reshape(-1, 2), pad_blocks(tap.area, part))
                keys = pad_words(pads, part)[:, : tap.area]
                offered = unpack(next(messages), keys.size, part.bits).reshape(keys.shape)
                got = keys + chosen.reshape(-1, 1).astype(part.dtype) * offered
                got = got.reshape(*chosen.shape, -1).sum(2, dtype=part.dtype)
                got = got.reshape(*got.shape[:2], *_sides(tap))
                _add(share, (g, k, *tap.outputs), part.reduce(got), i)
    return ring.reduce(share)


def _sides(tap: Tap) -> tuple[int, int]:
    """Rows and columns of a tap."""
    down, right = tap.outputs
    return down.stop - down.start, right.stop - right.start


def _count(tile: tuple[slice, ...]) -> int:
    return int(np.prod([s.stop - s.start for s in tile]))


# Choice bits of pixels (of wraps): the server offers, for every pixel, its weights in all uses.


def _use_tiles(p: GroupedProduct) -> list[tuple[slice, slice, slice]]:
    high, wide = p.window.image
    return list(p.tiles(high * wide * p.window.slots))


def _uses(words: np.ndarray, tap: Tap) -> np.ndarray:
    """A tap's share of (groups, fan_in, H, W, slots, outputs): (groups, outputs, fan_in, rows, cols)."""
    return words[:, :, *tap.pixels, tap.slot].transpose(0, 4, 1, 2, 3)


def _pixel_words(pads: np.ndarray, p: GroupedProduct, tile, ring: Ring) -> np.ndarray:
    """Pads of a tile's pixels as (groups, fan_in, H, W, slots, outputs)."""
    g, k, c = (s.stop - s.start for s in tile)
    words = pad_words(pads, ring)[:, : p.window.slots * k]
    return words.reshape(g, c, *p.window.image, p.window.slots, k)


def _pixels_send(party: Party, p: GroupedProduct, weights: np.ndarray) -> np.ndarray:
    """The server's half, on its weights (h, w, fan_in, K)."""
    ring, taps, walked = Ring(p.each.bits), p.window.taps, p.each.walked
    shape = (walked, p.groups, p.fan_in, *p.window.image)
    rows = rows_send(party, int(np.prod(shape))).reshape(*shape, 2)
    kernels = _kernels(ring.reduce(weights), p)
    share = np.zeros((p.groups, p.each.d1, *p.window.outputs), ring.dtype)
    for i in range(walked):
        part = Ring(ring.bits - i)
        cut = part.reduce(kernels)
        for tile in _use_tiles(p):
            g, k, c = tile
            blocks = pad_blocks(p.window.slots * (k.stop - k.start), part)
            pads = party.sender.pads(rows[i, g, c].reshape(-1, 2), blocks)
            zero, one = (_pixel_words(q, p, tile, part) for q in pads)
            offered = []
            for t, tap in enumerate(taps):
                first = _uses(zero, tap)
                vector = cut[t, g, k, c][..., None, None]
                offered.append(part.reduce(first + vector - _uses(one, tap)).reshape(-1))
                _add(share, (g, k, *tap.outputs), part.reduce(-first.sum(2, dtype=part.dtype)), i)
            whole = np.concatenate(offered)
            party.messenger.send(pack(whole, part.bits), whole.size * part.bits)
    return ring.reduce(share)


def _pixels_receive(party: Party, p: GroupedProduct, x: np.ndarray) -> np.ndarray:
    """The client's half: takes with the bits of its pixels (groups, fan_in, H, W)."""
    ring, taps, walked = Ring(p.each.bits), p.window.taps, p.each.walked
    choices = _planes(x, walked)
    rows = rows_receive(party, choices.reshape(-1)).reshape(*choices.shape, 2)
    share = np.zeros((p.groups, p.each.d1, *p.window.outputs), ring.dtype)
    tiles = _use_tiles(p)
    sizes = [
        _count(tile) * p.window.uses * (ring.bits - i) for i in range(walked) for tile in tiles
    ]
    messages = party.messenger.receive_each(sizes)
    for i in range(walked):
        part = Ring(ring.bits - i)
        for tile in tiles:
            g, k, c = tile
            blocks = pad_blocks(p.window.slots * (k.stop - k.start), part)
            pads = party.receiver.pads(rows[i, g, c].reshape(-1, 2), blocks)
            keys = _pixel_words(pads, p, tile, part)
            offered = unpack(next(messages), _count(tile) * p.window.uses, part.bits)
            at = 0
            for tap in taps:
                key = _uses(keys, tap)
                vector = offered[at : at + key.size].reshape(key.shape)
                at += key.size
                chosen = choices[i, g, None, c][..., *tap.pixels].astype(part.dtype)
                got = (key + chosen * vector).sum(2, dtype=part.dtype)
                _add(share, (g, k, *tap.outputs), part.reduce(got), i)
    return ring.reduce(share)


def _wraps_send(
    party: Party, p: GroupedProduct, weights: np.ndarray, flags: np.ndarray
) -> np.ndarray:
    """The server's half of "Wrap & MUX": both multiples of a pixel's weights, masked."""
    part, taps = Ring(p.each.bits - p.each.extended), p.window.taps
    rows = rows_send(party, flags.size).reshape(*flags.shape, 2)
    kernels = _kernels(part.reduce(weights), p)
    total = np.zeros((p.groups, p.each.d1, *p.window.outputs), part.dtype)
    for tile in _use_tiles(p):
        g, k, c = tile
        blocks = pad_blocks(p.window.slots * (k.stop - k.start), part)
        pads = party.sender.pads(rows[g, c].reshape(-1, 2), blocks)
        zero, one = (_pixel_words(q, p, tile, part) for q in pads)
        both = []
        for t, tap in enumerate(taps):
            first, second = _uses(zero, tap), _uses(one, tap)
            mask = party.randomness.elements(first.size, part).reshape(first.shape)
            flag = flags[g, None, c][..., *tap.pixels].astype(part.dtype)
            vector = kernels[t, g, k, c][..., None, None]
            both.append((part.reduce(flag * vector - mask) ^ part.reduce(first)).reshape(-1))
            flipped = part.reduce((1 - flag) * vector - mask)
            both.append((flipped ^ part.reduce(second)).reshape(-1))
            _add(total, (g, k, *tap.outputs), part.reduce(mask.sum(2, dtype=part.dtype)), 0)
        whole = np.concatenate(both)
        party.messenger.send(pack(whole, part.bits), whole.size * part.bits)
    return part.reduce(total)


def _wraps_receive(party: Party, p: GroupedProduct, flags: np.ndarray) -> np.ndarray:
    part, taps = Ring(p.each.bits - p.each.extended), p.window.taps
    rows = rows_receive(party, flags.reshape(-1)).reshape(*flags.shape, 2)
    total = np.zeros((p.groups, p.each.d1, *p.window.outputs), part.dtype)
    tiles = _use_tiles(p)
    counts = [2 * _count(tile) * p.window.uses for tile in tiles]
    messages = party.messenger.receive_each([n * part.bits for n in counts])
    for tile, n, raw in zip(tiles, counts, messages, strict=True):
        g, k, c = tile
        blocks = pad_blocks(p.window.slots * (k.stop - k.start), part)
        keys = _pixel_words(party.receiver.pads(rows[g, c].reshape(-1, 2), blocks), p, tile, part)
        both, at = unpack(raw, n, part.bits), 0
        for tap in taps:
            key = _uses(keys, tap)
            first, second = both[at : at + 2 * key.size].reshape(2, *key.shape)
            at += 2 * key.size
            chosen = flags[g, None, c][..., *tap.pixels]
            got = part.reduce(key ^ np.where(chosen != 0, second, first))
            _add(total, (g, k, *tap.outputs), part.reduce(got.sum(2, dtype=part.dtype)), 0)
    return part.reduce(total)


def grouped_bits(
    party: Party, p: GroupedProduct, weights: np.ndarray | None, x: np.ndarray | None
) -> np.ndarray:
    """[W * x]^L of rank 0's weights and rank 1's image, by correlated OTs on bits.

      1. choosing side -> offering side   its bits, as choices.
      2. offering side -> choosing side   for bit i, vectors of (L - i)-bit elements: a tap's pixels for
                                          a weight, all its uses for a pixel.

    Args:
      party: this party.
      p: shape, formats and variant.
      weights: (h, w, fan_in, K) signed integers at rank 0, None at rank 1.
      x: (H, W, C) elements of Ring(extended) at rank 1, None at rank 0.

    Returns:
      (H', W', K) share in Ring(L). Cost: `grouped_bits_cost`.
    """
    ring = Ring(p.each.bits)
    with party.messenger.step("product"):
        if party.rank == 0:
            assert weights is not None
            half = _weights_receive if p.each.by_weights else _pixels_send
            return _image(half(party, p, weights), p)
        assert x is not None
        planes = _by_group(x, p)
        if p.each.by_weights:
            return _image(_weights_send(party, p, planes.astype(ring.dtype)), p)
        return _image(_pixels_receive(party, p, planes), p)


def grouped_bits_cost(scheme: Scheme, p: GroupedProduct) -> Cost:
    """Requests for every bit, then vectors: S(n) elements' bits for every product of a pair."""
    n = p.each.walked
    total = n * p.each.bits - n * (n - 1) // 2
    if p.each.by_weights:
        ots = p.window.reading * p.groups * p.each.d1 * p.fan_in
        return scheme.request(1, ots * n) + message(1, p.pairs * total)
    return scheme.request(0, p.pixels * n) + message(0, p.pairs * total)


def multiply_grouped(
    party: Party, p: GroupedProduct, weights: np.ndarray | None, x: np.ndarray, forms: Forms
) -> np.ndarray:
    """[W * x]^L of rank 0's plain weights and a shared image.

    The identity is `linear_ot.multiply`'s; extension, wraps and their OTs are per pixel.

      1. extension of x, if the variant says so.
      2. as `grouped_bits`.
      3. as a wrap (cheap if the sign is known) and one chosen OT a pixel with all its uses.

    Args:
      party: this party.
      p: shape, formats and variant.
      weights: (h, w, fan_in, K) signed integers at rank 0, None at rank 1.
      x: (H, W, C) shares: Ring(x_bits), or Ring(bits) in the `full` variants.
      forms: forms of the small protocols.

    Returns:
      (H', W', K) share in Ring(L). Cost: `multiply_grouped_cost`.
    """
    each = p.each
    ring, narrow = Ring(each.bits), Ring(each.extended)
    if VARIANTS[each.variant][0] != "full":
        flat = extend(
            party, x.reshape(-1), each.x_bits, each.extended, each.x_signed, each.x_nonnegative,
            forms,
        )  # fmt: skip
        x = flat.reshape(x.shape)
        if each.offset and party.rank == 0:
            x = narrow.add(x, narrow.reduce(each.offset))
    y = grouped_bits(party, p, weights, x if party.rank == 1 else None)
    if party.rank == 0:
        assert weights is not None
        y = ring.add(y, convolve_plain(weights, x, p))
    if each.extended < each.bits:
        flat = x.reshape(-1)
        if each.sign_known:
            wraps = known_wrap_bit(party, flat, each.extended, forms.known_wrap == "table")
        else:
            wraps = wrap_bit(party, flat, each.extended)
        flags = _by_group(wraps.reshape(x.shape), p)
        with party.messenger.step("wrap and mux"):
            if party.rank == 0:
                assert weights is not None
                total = _wraps_send(party, p, weights, flags)
            else:
                total = _wraps_receive(party, p, flags)
        wide = ring.shift_left(_image(total, p).astype(ring.dtype), each.extended)
        y = ring.sub(y, wide)
    if each.offset and party.rank == 0:
        ones = np.full(x.shape, each.offset, ring.dtype)  # the padding was not moved
        y = ring.sub(y, convolve_plain(weights, ones, p))
    return y


def convolve_plain(weights: np.ndarray | None, x: np.ndarray, p: GroupedProduct) -> np.ndarray:
    """W * x on rank 0's own numbers, (H', W', K) in Ring(L)."""
    assert weights is not None
    ring = Ring(p.each.bits)
    y = conv(
        ring.reduce(x)[None], ring.reduce(np.asarray(weights)), ring, p.window.stride,
        p.window.padding, p.groups, p.window.dilation, w_bits=p.each.w_bits, w_signed=True,
    )  # fmt: skip
    return np.asarray(y)[0]


def multiply_grouped_cost(scheme: Scheme, p: GroupedProduct, forms: Forms) -> Cost:
    """`linear_ot.multiply_cost` per pixel; of a `full` variant only the product itself."""
    each, n = p.each, p.pixels
    cost = NOTHING
    if VARIANTS[each.variant][0] != "full":
        cost += extend_cost(
            scheme, n, each.x_bits, each.extended, each.x_signed, each.x_nonnegative, forms
        )
    cost += grouped_bits_cost(scheme, p)
    if each.extended < each.bits:
        if each.sign_known:
            cost += known_wrap_cost(scheme, n, forms.known_wrap == "table")
        else:
            cost += less_than_cost(scheme, n, each.extended)
        left = each.bits - each.extended
        cost += scheme.request(0, n) + message(0, 2 * p.pairs * left)
    return cost
