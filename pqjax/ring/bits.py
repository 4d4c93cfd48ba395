"""Bits of ring elements: exact-width packing to bytes, bit planes, digits.

The packed form is ours (both parties run this file), only its length is a promise: ceil(n*bits/8)
bytes for every n. Three layouts, chosen by (n, bits) alone:

  * 8, 16, 32, 64 bits: the little-endian bytes of the elements.
  * planar, for blocks of many elements: with w the width of the dtype and g = gcd(w, bits), a block
    is w/g contiguous segments of m elements, and becomes bits/g contiguous planes of m w-bit words.
    Lane i of the planes is the little-endian bit string of lane i of all segments. So every
    operation is one shift, AND or OR over contiguous lanes, and nothing is shuffled.
  * sequential, for short messages, ends of messages and 1-bit elements: one little-endian string.

Packing is numpy, not XLA: on blocks that stay in the L2 cache, ufuncs with out= run at half the rate
of a copy (measured), need no compilation for a new length, and cost no dispatch on short messages.
Planes are shifted as uint64 words of several lanes (numpy shifts a fixed number of elements a
second, whatever their width); what crosses from lane to lane is masked off.
"""

import functools
import math
from collections.abc import Iterator

import jax
import numpy as np

from pqjax.errors import InputError
from pqjax.ring.kernel import aligned
from pqjax.ring.ring import Ring

_BLOCK_BYTES = 1 << 19  # of elements; with its planes, they stay in the L2 cache
_PLANAR_LANES = 128  # planar from this many lanes on; below, call overhead outweighs the bit string


def packed_bytes(n: int, bits: int) -> int:
    """How many bytes n packed ring elements take: ceil(n * bits / 8)."""
    return (n * bits + 7) // 8


def pack(x: np.ndarray | jax.Array, bits: int) -> np.ndarray:
    """Packs ring elements to exactly ceil(n*bits/8) bytes; the pad bits at the end are zero.

    From (n,) reduced elements in the dtype of Ring(bits), bool too when bits is 1, to uint8 of shape
    (packed_bytes(n, bits),). May share memory with x when bits fills the dtype.
    """
    dtype = Ring(bits).dtype
    x = np.asarray(x)
    if x.ndim != 1:
        raise InputError(f"pack expects a flat array, got shape {x.shape}")
    if x.dtype != dtype and not (bits == 1 and x.dtype == bool):
        raise InputError(f"pack of {bits}-bit elements expects dtype {dtype}, got {x.dtype}")
    x = np.ascontiguousarray(x)
    if bits == 1:
        return np.packbits(x, bitorder="little")
    if bits == 8 * dtype.itemsize:
        return x.view(np.uint8)
    out = np.empty(packed_bytes(len(x), bits), np.uint8)
    done, at = 0, 0
    for segments, lanes in _blocks(len(x), bits):
        count, size = lanes * segments, lanes * segments * bits // 8
        rows = x[done : done + count].view(np.uint64).reshape(segments, -1)
        planes = out[at : at + size].view(np.uint64).reshape(-1, rows.shape[1])
        _pack_planes(rows, planes, bits)
        done, at = done + count, at + size
    if done < len(x):
        octets = x[done:].view(np.uint8).reshape(-1, dtype.itemsize)
        string = np.unpackbits(octets, axis=1, bitorder="little")
        out[at:] = np.packbits(string[:, :bits], bitorder="little")
    return out


def unpack(buffer: bytes | memoryview | np.ndarray, n: int, bits: int) -> np.ndarray:
    """Inverts `pack`; pad bits are ignored.

    Makes (n,) reduced elements in the dtype of Ring(bits), of packed_bytes(n, bits) bytes. May be a
    read-only view of the buffer when bits fills the dtype.
    """
    dtype = Ring(bits).dtype
    raw = np.frombuffer(buffer, np.uint8)
    nbytes = packed_bytes(n, bits)
    if n < 0 or len(raw) != nbytes:
        raise InputError(f"{n} elements of {bits} bits take {nbytes} bytes, got {len(raw)}")
    if bits == 1:
        return np.unpackbits(raw, count=n, bitorder="little")
    if raw.ctypes.data % 8:
        raw = raw.copy()  # numpy is slow on unaligned words
    if bits == 8 * dtype.itemsize:
        return raw.view(dtype)
    out = aligned(n, dtype)
    done, at = 0, 0
    for segments, lanes in _blocks(n, bits):
        count, size = lanes * segments, lanes * segments * bits // 8
        rows = out[done : done + count].view(np.uint64).reshape(segments, -1)
        planes = raw[at : at + size].view(np.uint64).reshape(-1, rows.shape[1])
        _unpack_planes(planes, rows, bits)
        done, at = done + count, at + size
    if done < n:
        string = np.unpackbits(raw[at:], count=(n - done) * bits, bitorder="little")
        padded = np.zeros((n - done, 8 * dtype.itemsize), np.uint8)
        padded[:, :bits] = string.reshape(-1, bits)
        out[done:] = np.packbits(padded, axis=1, bitorder="little").view(dtype)[:, 0]
    return out


def _blocks(n: int, bits: int) -> Iterator[tuple[int, int]]:
    """The planar blocks of n elements, as (segments, lanes); the rest is sequential."""
    itemsize = Ring(bits).dtype.itemsize
    word = 8 * itemsize
    segments, whole = word // math.gcd(word, bits), 8 // itemsize  # lanes fill uint64 words
    while True:
        lanes = min(_BLOCK_BYTES // itemsize, n) // segments // whole * whole
        if lanes < _PLANAR_LANES:
            return
        yield segments, lanes
        n -= segments * lanes


@functools.cache
def _lane_mask(low: int, high: int, width: int) -> np.uint64:
    """Bits low..high-1 of every lane of `width` bits."""
    lane = (1 << high) - (1 << low)
    return np.uint64(lane * (((1 << 64) - 1) // ((1 << width) - 1)))


def _pack_planes(rows: np.ndarray, planes: np.ndarray, bits: int) -> None:
    """Segments to planes, both as rows of uint64 words of lanes."""
    width = 8 * Ring(bits).dtype.itemsize
    scratch = np.empty_like(planes[0])
    for k, row in enumerate(rows):
        index, offset = divmod(k * bits, width)
        plane = planes[index]
        if offset == 0:
            plane[...] = row
            continue
        np.left_shift(row, np.uint64(offset), out=scratch)
        if offset + bits > width:
            if width < 64:
                np.bitwise_and(scratch, _lane_mask(offset, width, width), out=scratch)
            carry = planes[index + 1]
            np.right_shift(row, np.uint64(width - offset), out=carry)
            if width < 64:
                np.bitwise_and(carry, _lane_mask(0, offset + bits - width, width), out=carry)
        np.bitwise_or(plane, scratch, out=plane)


def _unpack_planes(planes: np.ndarray, rows: np.ndarray, bits: int) -> None:
    width = 8 * Ring(bits).dtype.itemsize
    scratch = np.empty_like(planes[0])
    for k, row in enumerate(rows):
        index, offset = divmod(k * bits, width)
        plane, here = planes[index], min(bits, width - offset)  # `here` bits lie in this plane
        if offset:
            np.right_shift(plane, np.uint64(offset), out=row)
            plane = row
        if width < 64 or here == bits:
            np.bitwise_and(plane, _lane_mask(0, here, width), out=row)
        if here < bits:
            np.left_shift(planes[index + 1], np.uint64(here), out=scratch)
            np.bitwise_and(scratch, _lane_mask(here, bits, width), out=scratch)
            np.bitwise_or(row, scratch, out=row)


def digits(x: np.ndarray | jax.Array, bits: int, width: int) -> np.ndarray:
    """The base-2^width digits of ring elements, least significant first; of width 1 their bit planes.

    From (n,) reduced elements in the dtype of Ring(bits) to uint8 of shape (ceil(bits/width), n); a
    digit has 1..8 bits, the last one may be shorter.
    """
    dtype = Ring(bits).dtype
    x = np.asarray(x)
    if x.ndim != 1:
        raise InputError(f"digits expects a flat array, got shape {x.shape}")
    if x.dtype != dtype:
        raise InputError(f"digits of {bits}-bit elements expects dtype {dtype}, got {x.dtype}")
    if not 1 <= width <= 8:
        raise InputError(f"digit width must be in 1..8, got {width}")
    count = -(-bits // width)
    out = np.empty((count, len(x)), np.uint8)
    for i in range(count):
        np.right_shift(x, dtype.type(i * width), out=out[i], casting="unsafe")
    if width < 8:
        np.bitwise_and(out, np.uint8((1 << width) - 1), out=out)
    return out
