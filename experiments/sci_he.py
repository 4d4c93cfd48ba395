"""What linear layers send by CrypTFlow2's homomorphic encryption, as its public code counts.

CrypTFlow2 (eprint 2020/1002) multiplies by rotations of packed ciphertexts. `conv-field.cpp`,
`fc-field.cpp` and `utils-HE.cpp` of its code (SCI/src/LinearHE in the repository mpc-msri/EzPC) say:

    N              max(8192, 2 * next power of two of a padded image's, or a vector's, elements)
    moduli         {60, 60, 60, 38} bits, the last of which serves keys alone
    a convolution  one of step 1 for every phase of its steps, each there and back; a half of a
                   ciphertext holds (N / 2) / next power of two of an image's elements channels
    up             2 N coefficients of 180 bits a ciphertext
    down           2 N coefficients of 60 bits, after two of three moduli are dropped
    a dense layer  one ciphertext each way

Coefficients count as the bits of their modulus; SEAL writes words of 64. Keys, once a session, are left
out. Layers in groups are not in that code. There shares live modulo a prime, not 2^37.
"""

from __future__ import annotations

import math

from pqjax.errors import InputError
from pqjax.linear import LinearMap

SENT_BITS, REPLY_BITS = 180, 60  # log2 q, there and back
_LEAST, _MOST = 8192, 65536


def he_bits(m: LinearMap) -> tuple[int, int]:
    """Bits down and up of one layer, as `Cost.sent` has them.

    Raises:
      InputError: a layer in groups, or an image that no ciphertext holds.
    """
    if m.groups != 1:
        raise InputError("CrypTFlow2's code has no convolutions in groups")
    if m.image == (1, 1):
        degree = max(_LEAST, 2 * _power(m.inputs))
        return 2 * degree * REPLY_BITS, 2 * degree * SENT_BITS
    down = up = 0
    for image in _phases(m):
        pixels = _power(math.prod(image))
        degree = max(_LEAST, 2 * pixels)
        if degree > _MOST:
            raise InputError(f"an image of {image} does not fit half a ciphertext")
        held = 2 * (degree // 2 // pixels)
        up += -(-m.inputs // held) * 2 * degree * SENT_BITS
        down += -(-m.outputs // held) * 2 * degree * REPLY_BITS
    return down, up


def _phases(m: LinearMap) -> list[tuple[int, int]]:
    """Rows and columns, padding included, of the images of a convolution's phases that filters meet."""
    axes = []
    for n, pads, taps, step, out in zip(
        m.image, m.padding, m.kernel, m.stride, m.out_image, strict=True
    ):
        limit = taps + (out - 1) * step
        assert limit <= n + sum(pads)
        axes.append([-(-(limit - first) // step) for first in range(min(step, taps))])
    return [(high, wide) for high in axes[0] for wide in axes[1]]


def _power(n: int) -> int:
    """The next power of two."""
    return 1 << (n - 1).bit_length()
