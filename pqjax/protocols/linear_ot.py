"""Matrix products of the server's weights and a shared operand, by oblivious transfer.

Y = W X with W (d1, d2) plain at rank 0 and X (d2, d3) shared. W times rank 0's share is local; W
times rank 1's share c is bit-decomposed: every bit of W (rank 1 offers its row of c) or of c (rank 0
offers its column of W) selects a correlated vector, and bit i's needs only L - i bits.

    product   choice bits   OTs            vector            bits sent
    weights   W             d1 d2 w_bits   d3 of L - i       d1 d2 [ w_bits * 128 + d3 S(w_bits) ]
    pixels    c             d2 d3 x_bits   d1 of L - i       d2 d3 [ x_bits * 128 + d1 S(x_bits) ]

with S(n) = n L - n (n - 1) / 2. Rank 1's share as an integer is off by 2^x_bits where the shares
wrap; unless X fills the ring (x_bits = L) that is put right by one comparison and one OT a column
of W each ("Wrap & MUX").
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np

from pqjax.ot.correlations import pad_blocks, pad_words, rows_receive, rows_send
from pqjax.ot.endpoint import Scheme
from pqjax.protocols.compare import known_wrap_bit, known_wrap_cost, less_than_cost, wrap_bit
from pqjax.protocols.party import Party
from pqjax.protocols.resize import Forms, extend, extend_cost
from pqjax.ring import Ring, kernel, laid_out, matmul, pack, unpack
from pqjax.wire.cost import NOTHING, Cost, message

_TILE = 1 << 20  # elements of a message: a few mebibytes, so that send and compute overlap


def _offer(x, zero, one, bits):
    """Sender: t = k0 + x - k1 for (outer, inner, width), and minus the sum of k0 over inner."""
    ring, width = Ring(bits), x.shape[1]
    zero, one = (key[:, :width].reshape(-1, *x.shape) for key in (zero, one))
    return ring.reduce(zero + x[None] - one), -zero.sum(1, dtype=ring.dtype)


def _gather(choice, key, offered, inner, bits):
    """Receiver: the sum over inner of k + c t."""
    ring = Ring(bits)
    width = offered.shape[1]
    got = key[:, :width] + choice[:, None].astype(ring.dtype) * offered
    return got.reshape(-1, inner, width).sum(1, dtype=ring.dtype)


def _offer_both(x, flag, zero, one, mask, bits):
    """Sender of chosen messages (f ^ c) x - m, and the sum of m over inner."""
    ring, width = Ring(bits), x.shape[1]
    zero, one = (key[:, :width].reshape(-1, *x.shape) for key in (zero, one))
    mask = mask.reshape(-1, *x.shape)
    flag = flag.reshape(zero.shape[0], x.shape[0], 1).astype(ring.dtype)
    first = ring.reduce(flag * x[None] - mask) ^ ring.reduce(zero)
    second = ring.reduce((1 - flag) * x[None] - mask) ^ ring.reduce(one)
    return jnp.stack([first, second]), mask.sum(1, dtype=ring.dtype)


def _open_both(choice, key, both, inner, bits):
    ring = Ring(bits)
    width = both.shape[2]
    got = ring.reduce(key[:, :width] ^ jnp.where(choice[:, None] != 0, both[1], both[0]))
    return got.reshape(-1, inner, width).sum(1, dtype=ring.dtype)


_offer_kernel = kernel(_offer, static=("bits",))
_gather_kernel = kernel(_gather, static=("inner", "bits"))
_offer_both_kernel = kernel(_offer_both, static=("bits",))
_open_both_kernel = kernel(_open_both, static=("inner", "bits"))


def _tiles(outer: int, inner: int, width: int) -> list[tuple[slice, slice]]:
    """Cuts (outer, inner) OTs of `width` elements into equal tiles of bearable size."""
    inner_step = max(1, min(inner, _TILE // width))
    outer_step = max(1, min(outer, _TILE // (inner * width)))
    while outer % outer_step:  # few distinct shapes: every one is compiled
        outer_step -= 1
    return [
        (slice(i, min(i + outer_step, outer)), slice(k, min(k + inner_step, inner)))
        for i in range(0, outer, outer_step)
        for k in range(0, inner, inner_step)
    ]


def _flat(array: np.ndarray, tile: tuple[slice, slice]) -> np.ndarray:
    """The tile of an (outer, inner, ...) array, its first two axes made one."""
    part = array[tile]
    return np.ascontiguousarray(part).reshape(-1, *part.shape[2:])


def _cots_send(
    party: Party, vectors: np.ndarray, outer: int, bits: int, ring: Ring, top_negative: bool
) -> np.ndarray:
    """Offers vectors (inner, width) to outer * inner OTs for each of `bits` bit positions.

    Returns:
      (outer, width) in `ring`: this side's share of the sum over inner and bit positions i of
      2^i b_i x, the last position counting -2^i if `top_negative`.
    """
    inner, width = vectors.shape
    rows = rows_send(party, bits * outer * inner).reshape(bits, outer, inner, 2)
    share = np.zeros((outer, width), ring.dtype)
    for i in range(bits):
        part = Ring(ring.bits - i)
        negated = top_negative and i == bits - 1
        cut = laid_out(part.reduce(ring.neg(vectors) if negated else vectors))
        for tile in _tiles(outer, inner, width):
            pads = party.sender.pads(_flat(rows[i], tile), pad_blocks(width, part))
            zero, one = (pad_words(p, part) for p in pads)
            offered, own = _offer_kernel(cut[tile[1]], zero, one, bits=part.bits)
            offered = np.asarray(offered).reshape(-1)
            party.messenger.send(pack(offered, part.bits), offered.size * part.bits)
            _accumulate(share, tile[0], np.asarray(own), i, ring)
    return ring.reduce(share)


def _cots_receive(party: Party, choices: np.ndarray, width: int, ring: Ring) -> np.ndarray:
    """Takes with choices (bits, outer, inner) uint8; its share (outer, width), see `_cots_send`."""
    bits, outer, inner = choices.shape
    rows = rows_receive(party, choices.reshape(-1)).reshape(bits, outer, inner, 2)
    tiles = _tiles(outer, inner, width)
    sizes = [_area(tile) * width * (ring.bits - i) for i in range(bits) for tile in tiles]
    share = np.zeros((outer, width), ring.dtype)
    messages = party.messenger.receive_each(sizes)
    for i in range(bits):
        part = Ring(ring.bits - i)
        for tile in tiles:
            keys = party.receiver.pads(_flat(rows[i], tile), pad_blocks(width, part))
            raw = next(messages)
            offered = unpack(raw, _area(tile) * width, part.bits).reshape(-1, width)
            got = _gather_kernel(
                _flat(choices[i], tile), pad_words(keys, part), offered,
                inner=tile[1].stop - tile[1].start, bits=part.bits,
            )  # fmt: skip
            _accumulate(share, tile[0], np.asarray(got), i, ring)
    return ring.reduce(share)


def _area(tile: tuple[slice, slice]) -> int:
    return (tile[0].stop - tile[0].start) * (tile[1].stop - tile[1].start)


def _accumulate(share: np.ndarray, outer: slice, part: np.ndarray, shift: int, ring: Ring) -> None:
    """share[outer] += part * 2^shift; what lies above the ring is cut at the end."""
    share[outer] += part.astype(ring.dtype) << ring.dtype.type(shift)


def _planes(x: np.ndarray, bits: int) -> np.ndarray:
    """Bits of integers (m, n), two's complement if negative: (bits, m, n) uint8."""
    unsigned = Ring(bits).reduce(x)
    return np.stack(
        [((unsigned >> unsigned.dtype.type(i)) & 1).astype(np.uint8) for i in range(bits)]
    )


@dataclasses.dataclass(frozen=True)
class Product:
    """One linear layer as a matrix product: public shape, formats and the way it is computed.

    Attributes:
      d1, d2, d3: Y (d1, d3) = W (d1, d2) X (d2, d3).
      w_bits: width of the signed weights.
      x_bits: width of X's shares.
      x_signed, x_nonnegative: how X is read, and the fact about its sign.
      bits: width L of the accumulator.
      variant: a key of `VARIANTS`.
    """

    d1: int
    d2: int
    d3: int
    w_bits: int
    x_bits: int
    x_signed: bool
    x_nonnegative: bool
    bits: int
    variant: str

    @property
    def extended(self) -> int:
        """Width of X's shares in the product, never more than the accumulator's."""
        if VARIANTS[self.variant][0] == "full":
            return self.bits
        if VARIANTS[self.variant][0] == "weights":
            return min(self.x_bits, self.bits)
        return min(max(self.x_bits, self.bits - self.w_bits), self.bits)

    @property
    def by_weights(self) -> bool:
        """Whether the bits of W are the choices, and not those of X."""
        return VARIANTS[self.variant][1] == "weights"

    @property
    def walked(self) -> int:
        """Bit positions that OTs walk through."""
        if not self.by_weights:
            return self.extended
        extends_weights = VARIANTS[self.variant][0] == "weights"
        wide = max(self.w_bits, self.bits - self.x_bits) if extends_weights else self.w_bits
        return min(wide, self.bits)  # what lies above the accumulator's ring is 0 in it

    @property
    def offset(self) -> int:
        """What is added to a signed X so that its shares can be read as unsigned."""
        moved = self.x_signed and not self.x_nonnegative and self.extended < self.bits
        return 1 << (self.extended - 1) if moved else 0

    @property
    def sign_known(self) -> bool:
        """Whether the top bit of the extended X is known to be 0."""
        if self.x_signed:
            return self.x_nonnegative
        return self.extended > self.x_bits


# What is extended to make room for the sum, and whose bits choose. (1) to (4) are PrivQuant's table
# 4; in `full` X already fills the accumulator's ring, so no wrap has to be put right.
VARIANTS: dict[str, tuple[str, str]] = {
    "1-extend-w-choose-x": ("weights", "pixels"),
    "2-extend-w-choose-w": ("weights", "weights"),
    "3-extend-x-choose-x": ("inputs", "pixels"),
    "4-extend-x-choose-w": ("inputs", "weights"),
    "full-choose-x": ("full", "pixels"),
    "full-choose-w": ("full", "weights"),
}
PRIVQUANT = tuple(VARIANTS)[:4]
FULL = tuple(VARIANTS)[4:]


def product_bits(
    party: Party, product: Product, weights: np.ndarray | None, c: np.ndarray | None
) -> np.ndarray:
    """[W c]^L of rank 0's weights and rank 1's integers c, by correlated OTs on bits.

      1. choosing side -> offering side   its bits, as choices.
      2. offering side -> choosing side   for bit i of every number, a vector of (L - i)-bit elements.

    Choices that are bits of W do not depend on the input. The top bit of W's two's complement counts
    -2^i, so rank 1 offers -c for it.

    Args:
      party: this party.
      product: shape, formats and variant.
      weights: (d1, d2) signed integers at rank 0, None at rank 1.
      c: (d2, d3) elements of Ring(extended) at rank 1, None at rank 0.

    Returns:
      (d1, d3) share in Ring(L). Cost: `product_bits_cost`. Reference: PrivQuant, section 4.1.1.
    """
    ring, p = Ring(product.bits), product
    with party.messenger.step("product"):
        if p.by_weights:
            if party.rank == 1:
                assert c is not None
                wide = ring.reduce(c) if c.dtype != ring.dtype else c
                return _cots_send(party, wide, p.d1, p.walked, ring, top_negative=True)
            assert weights is not None
            return _cots_receive(party, _planes(weights, p.walked), p.d3, ring)
        if party.rank == 0:
            columns = np.ascontiguousarray(ring.reduce(weights).T)
            share = _cots_send(party, columns, p.d3, p.walked, ring, top_negative=False)
        else:
            assert c is not None
            planes = _planes(np.ascontiguousarray(c.T), p.walked)
            share = _cots_receive(party, planes, p.d1, ring)
        return np.ascontiguousarray(share.T)


def product_unfit(product: Product, plain: bool) -> str | None:
    """Why a `full` variant would be wrong: its shares are not extended; None where it is right.

    Args:
      product: shape, formats and variant.
      plain: whether one party holds X in the clear, so that it has no shares that wrap.
    """
    full = VARIANTS[product.variant][0] == "full"
    if full and product.x_bits < product.bits and not plain:
        return (
            f"needs an operand of {product.bits} bits, got {product.x_bits}: its preset lacks a pass "
            "that extends operands"
        )
    return None


def product_bits_cost(scheme: Scheme, product: Product) -> Cost:
    """Requests for every bit, then vectors: S(n) = n L - n (n - 1) / 2 elements' bits each."""
    p, n = product, product.walked
    total = n * p.bits - n * (n - 1) // 2
    if p.by_weights:
        return scheme.request(1, p.d1 * p.d2 * n) + message(1, p.d1 * p.d2 * p.d3 * total)
    return scheme.request(0, p.d2 * p.d3 * n) + message(0, p.d2 * p.d3 * p.d1 * total)


def _subtract_wraps(
    party: Party, product: Product, weights: np.ndarray | None, wraps: np.ndarray
) -> np.ndarray:
    """[-2^x W w]^L of XOR-shared wraps w (d2, d3): "Wrap & MUX", by chosen OTs from rank 0.

    1. rank 1 -> rank 0   its share of every wrap, as a choice.
    2. rank 0 -> rank 1   both multiples of a column of W, masked: 2 d1 (L - x) bits each.
    """
    p = product
    ring, part = Ring(p.bits), Ring(p.bits - p.extended)
    flags = np.ascontiguousarray(wraps.T)  # (d3, d2): columns of W are contiguous per pixel
    tiles = _tiles(p.d3, p.d2, 2 * p.d1)
    total = np.zeros((p.d3, p.d1), part.dtype)
    with party.messenger.step("wrap and mux"):
        if party.rank == 0:
            rows = rows_send(party, flags.size).reshape(p.d3, p.d2, 2)
            columns = laid_out(part.reduce(weights).T)
            for tile in tiles:
                pads = party.sender.pads(_flat(rows, tile), pad_blocks(p.d1, part))
                zero, one = (pad_words(q, part) for q in pads)
                mask = party.randomness.elements(_area(tile) * p.d1, part).reshape(-1, p.d1)
                both, own = _offer_both_kernel(
                    columns[tile[1]], _flat(flags, tile), zero, one, mask, bits=part.bits
                )
                both = np.asarray(both).reshape(-1)
                party.messenger.send(pack(both, part.bits), both.size * part.bits)
                _accumulate(total, tile[0], np.asarray(own), 0, part)
        else:
            rows = rows_receive(party, flags.reshape(-1)).reshape(p.d3, p.d2, 2)
            sizes = [2 * _area(tile) * p.d1 * part.bits for tile in tiles]
            for tile, raw in zip(tiles, party.messenger.receive_each(sizes), strict=True):
                keys = party.receiver.pads(_flat(rows, tile), pad_blocks(p.d1, part))
                both = unpack(raw, 2 * _area(tile) * p.d1, part.bits).reshape(2, -1, p.d1)
                got = _open_both_kernel(
                    _flat(flags, tile), pad_words(keys, part), both,
                    inner=tile[1].stop - tile[1].start, bits=part.bits,
                )  # fmt: skip
                _accumulate(total, tile[0], np.asarray(got), 0, part)
    wide = ring.shift_left(part.reduce(total).astype(ring.dtype), p.extended)
    return ring.neg(np.ascontiguousarray(wide.T))


def multiply(
    party: Party, product: Product, weights: np.ndarray | None, x: np.ndarray, forms: Forms
) -> np.ndarray:
    """[W X]^L of rank 0's plain weights and a shared X.

    W X = W x0 + W x1 - 2^x W wrap(x0, x1): the first term is local, the second `product_bits`, the
    third "Wrap & MUX", which does not exist where X fills the ring.

      1. extension of X, if the variant says so.
      2. as `product_bits`.
      3. as a wrap (cheap if the sign is known) and one chosen OT a column of W and pixel.

    Args:
      party: this party.
      product: shape, formats and variant.
      weights: (d1, d2) signed integers at rank 0, None at rank 1.
      x: (d2, d3) shares: Ring(x_bits), or Ring(bits) in the `full` variants.
      forms: forms of the small protocols.

    Returns:
      (d1, d3) share in Ring(L). Cost: `multiply_cost`. Reference: PrivQuant, table 4; SiRNN, section
      III.E.
    """
    p = product
    ring, narrow = Ring(p.bits), Ring(p.extended)
    if VARIANTS[p.variant][0] != "full":
        flat = extend(
            party, x.reshape(-1), p.x_bits, p.extended, p.x_signed, p.x_nonnegative, forms
        )
        x = flat.reshape(x.shape)
        if p.offset and party.rank == 0:
            x = narrow.add(x, narrow.reduce(p.offset))
    y = product_bits(party, p, weights, x if party.rank == 1 else None)
    if party.rank == 0:
        assert weights is not None
        y = ring.add(y, multiply_plain(weights, x, p))
    if p.extended < p.bits:
        flat = x.reshape(-1)
        if p.sign_known:
            table = forms.known_wrap == "table"
            wraps = known_wrap_bit(party, flat, p.extended, table)
        else:
            wraps = wrap_bit(party, flat, p.extended)
        y = ring.add(y, _subtract_wraps(party, p, weights, wraps.reshape(x.shape)))
    if p.offset and party.rank == 0:
        sums = np.asarray(weights).astype(np.int64).sum(1, keepdims=True)
        y = ring.sub(y, ring.reduce(sums * p.offset))
    return y


def multiply_plain(weights: np.ndarray, x: np.ndarray, product: Product) -> np.ndarray:
    """W x on rank 0's own numbers, (d1, d3) in Ring(L)."""
    ring = Ring(product.bits)
    return np.asarray(
        matmul(
            np.asarray(weights), ring.reduce(x), ring, a_bits=product.w_bits, a_signed=True,
            b_bits=min(product.extended, product.bits),
        )
    )  # fmt: skip


def multiply_cost(scheme: Scheme, product: Product, forms: Forms) -> Cost:
    """PrivQuant's table 4, exactly; of a `full` variant only the product itself."""
    p, n = product, product.d2 * product.d3
    cost = NOTHING
    if VARIANTS[p.variant][0] != "full":
        cost += extend_cost(scheme, n, p.x_bits, p.extended, p.x_signed, p.x_nonnegative, forms)
    cost += product_bits_cost(scheme, p)
    if p.extended < p.bits:
        if p.sign_known:
            cost += known_wrap_cost(scheme, n, forms.known_wrap == "table")
        else:
            cost += less_than_cost(scheme, n, p.extended)
        cost += scheme.request(0, n) + message(0, 2 * n * p.d1 * (p.bits - p.extended))
    return cost


def patches(
    x: np.ndarray,
    kernel_size: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[tuple[int, int], tuple[int, int]],
    dilation: tuple[int, int] = (1, 1),
) -> np.ndarray:
    """im2col of an (H, W, C) image: (h w C, H' W'), rows ordered like an HWIO kernel's first axes."""
    planes = np.pad(x.transpose(2, 0, 1), ((0, 0), *padding))
    height = (planes.shape[1] - 1 - (kernel_size[0] - 1) * dilation[0]) // stride[0] + 1
    width = (planes.shape[2] - 1 - (kernel_size[1] - 1) * dilation[1]) // stride[1] + 1
    out = np.empty((*kernel_size, x.shape[2], height, width), x.dtype)
    for i in range(kernel_size[0]):
        for j in range(kernel_size[1]):
            down, right = i * dilation[0], j * dilation[1]
            rows = slice(down, down + stride[0] * (height - 1) + 1, stride[0])
            cols = slice(right, right + stride[1] * (width - 1) + 1, stride[1])
            out[i, j] = planes[:, rows, cols]
    return out.reshape(-1, height * width)
