"""Random architectures over all kinds and options that `Architecture` accepts, and pictures for them."""

import functools

import jax.numpy as jnp
import numpy as np
import slow_nets
from flax import nnx

from nets import ops
from nets.architecture import Draft
from nets.data import integer_input
from nets.floating import FloatNet
from nets.fold import fold_batch_norm
from nets.ops import INPUT, PIXEL_ZERO, Architecture

CLASSES = 5
CAPS = (0.4, 0.75)


class Dice:
    """A network that grows by chance, from any tensor that it has; knows the shapes."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.draft = Draft()
        sides = (int(n) for n in self.rng.integers(5, 14, 2))
        self.image = (*sides, int(self.pick(1, 3, 4)))
        self.shapes = {INPUT: self.image}
        self.read = {INPUT}
        self.open = [INPUT]  # what may be read: not what a norm alone reads

    def pick(self, *choices):
        return choices[self.rng.integers(len(choices))]

    def chance(self, share):
        return self.rng.random() < share

    def put(self, kind, sources, *fields, **named):
        name = f"{kind.__name__.lower()}{len(self.draft.ops)}"
        op = kind(name, tuple(sources), *fields, **named)
        self.shapes[name] = op.shape(*(self.shapes[source] for source in sources))
        self.read.update(sources)
        if kind is ops.Norm:
            self.open.remove(sources[0])
        self.open.append(name)
        return self.draft.add(op)

    def some(self, *alike):
        """A tensor, the last one or an earlier one, of one shape (or of its first sides) if given."""
        found = [name for name in self.open if self.shapes[name][: len(alike)] == alike]
        return found[-1] if self.chance(0.6) else self.pick(*found)

    def window(self, at, most):
        """Up to so many rows and columns, within an image."""
        found = tuple(int(self.rng.integers(1, min(most, n) + 1)) for n in self.shapes[at][:2])
        return (min(found),) * 2 if self.chance(0.4) else found

    def steps(self):
        found = tuple(int(n) for n in self.rng.choice([1, 1, 2, 3], 2))
        return found[:1] * 2 if self.chance(0.5) else found

    def conv(self, at, channels=None, same=False):
        """Any window up to 11x11, margins, steps, groups and dilation; or one that keeps the sides."""
        high, wide, c = self.shapes[at]
        window = self.window(at, int(self.pick(3, 5, 11)))
        dilation = tuple(int(self.pick(1, 1, 2)) if 2 * n < s + 2 else 1
                         for n, s in zip(window, (high, wide), strict=True))  # fmt: skip
        over = [(n - 1) * d for n, d in zip(window, dilation, strict=True)]
        if same:
            padding, stride = tuple((n // 2, n - n // 2) for n in over), (1, 1)
        else:
            padding = tuple((int(self.rng.integers(0, n + 1)), self.pick(0, n)) for n in over)
            stride = self.steps()
        divisors = [n for n in range(1, c + 1) if c % n == 0]
        groups = int(self.pick(1, *divisors)) if channels is None else 1
        channels = channels or groups * int(self.pick(1, 2, 3))
        at = self.put(ops.Conv, [at], channels, window, stride, padding, groups, dilation)
        return self.normed(at, 0.75)

    def normed(self, at, share):
        return self.put(ops.Norm, [at]) if self.chance(share) else at

    def relu(self, at):
        return self.put(ops.Relu, [at], self.pick(None, None, *CAPS))

    def maybe_relu(self, at):
        return self.relu(at) if self.chance(0.7) else at

    def layer(self):
        return self.maybe_relu(self.conv(self.image_of()))

    def image_of(self):
        while len(self.shapes[at := self.some()]) < 3:
            pass
        return at

    def average(self):
        at = self.image_of()
        if self.chance(0.4):  # 2^k values, one beside the other
            window = tuple(min(self.pick(1, 2, 4), n) & -2 or 1 for n in self.shapes[at][:2])
            return self.put(ops.AvgPool, [at], window, window)
        window = self.window(at, 4)
        padding = ops.NO_MARGINS
        if self.chance(0.4):
            padding = tuple((int(self.pick(0, n // 2)), n // 2) for n in window)
        return self.put(ops.AvgPool, [at], window, self.steps(), padding=padding)

    def largest(self):
        at = self.image_of()
        return self.put(ops.MaxPool, [at], self.window(at, 4), self.steps())

    def pad(self):
        margins = (tuple(int(n) for n in self.rng.integers(0, 2, 2)) for _ in range(3))
        margins, edge = tuple(margins), self.chance(0.4)
        margins = (*margins[:2], (0, 0)) if edge else margins
        return self.put(ops.Pad, [self.image_of()], margins, edge)

    def take(self):
        at = self.image_of()
        count = int(self.rng.integers(1, self.shapes[at][2] + 1))
        places = self.rng.permutation(self.shapes[at][2])[:count]
        return self.put(ops.Take, [at], tuple(int(n) for n in places))

    def subsample(self):
        return self.put(ops.Subsample, [self.image_of()], self.steps())

    def sum(self):
        """Of any two tensors of one shape; one is made where there is no second."""
        at = self.image_of()
        if self.chance(0.3):
            at = self.conv(at, same=True)
        alike = [n for n in self.open if self.shapes[n] == self.shapes[at] and n != at]
        if not alike or self.chance(0.6):
            alike = [self.conv(at, self.shapes[at][2], same=True)]
        pair = [at, self.pick(*alike)]
        return self.maybe_relu(self.put(ops.Add, pair[:: self.pick(1, -1)]))

    def concat(self):
        at = self.image_of()
        more = [self.some(*self.shapes[at][:2]) for _ in range(self.pick(1, 2))]
        return self.put(ops.Concat, [at, *more])

    def grown(self, length):
        """So many steps."""
        kinds = (
            self.layer, self.layer, self.layer, self.sum, self.sum, self.concat, self.average,
            self.largest, self.pad, self.subsample, self.take, lambda: self.relu(self.image_of()),
        )  # fmt: skip
        self.layer()
        for _ in range(length):
            self.pick(*kinds)()

    def vectors(self):
        """What nothing reads yet, flat."""
        found = []
        for at in [name for name in self.shapes if name not in self.read]:
            if len(self.shapes[at]) == 3:
                if self.chance(0.5):
                    at = self.put(ops.GlobalAverage, [at])
                at = self.put(ops.Flatten, [at])
            found.append(at)
        return found

    def closed(self):
        """Logits: of dense layers, or of a convolution's averages."""
        if self.chance(0.2):
            self.conv(self.image_of(), CLASSES)
        found = self.vectors()
        if len(found) == 1 and self.shapes[found[0]] == (CLASSES,):
            return
        at = self.put(ops.Concat, found) if len(found) > 1 else found[0]
        for _ in range(self.pick(0, 0, 1, 2)):
            at = self.maybe_relu(self.normed(self.put(ops.Dense, [at], self.pick(7, 12)), 0.5))
        at = self.normed(self.put(ops.Dense, [at], CLASSES), 0.3)
        if self.chance(0.2):
            self.relu(at)


def random_architecture(seed):
    dice = Dice(seed)
    dice.grown(dice.pick(2, 4, 6))
    dice.closed()
    signed = dice.chance(0.5)
    zero = 0 if not signed and seed % 3 == 0 else PIXEL_ZERO
    made = tuple(dice.draft.ops)
    return Architecture(f"dice{seed}", "none", dice.image, CLASSES, made, signed, zero)


def pictures(seed, shape):
    """uint8 (n, H, W, C): each of a colour of its own, so that averages tell them apart."""
    rng = np.random.default_rng(seed)
    colour = rng.integers(0, 256, (shape[0], 1, 1, shape[-1]))
    return ((colour + rng.integers(0, 256, shape)) // 2).astype(np.uint8)


@functools.cache
def float_network(seed, count=8):
    """A random one with norms fitted to its pictures, and these as integer inputs."""
    architecture = random_architecture(seed)
    x = pictures(seed, (count, *architecture.image))
    x = jnp.asarray(integer_input(x, architecture.zero))
    net = FloatNet(architecture, nnx.Rngs(seed))
    for layer, held in zip(architecture.layers, net.weighted, strict=True):
        if held.norm is None:
            assert held.bias is not None  # the one or the other
            held.bias[...] = 0.1 * np.random.default_rng(1).normal(size=held.bias.shape)
            continue
        made = slow_nets.every_tensor(architecture, fold_batch_norm(net), x)[layer.name]
        flat = made.reshape(-1, layer.channels)
        held.norm.mean[...] = jnp.float32(flat.mean(0))
        # A channel of zeros alone would be magnified 300 times.
        held.norm.var[...] = jnp.float32(np.maximum(flat.var(0), 0.01))
    net.eval()
    return net, x
