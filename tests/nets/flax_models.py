"""Models as their users write them, in inference mode only where that is their default."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx


def same_conv(inputs, outputs, window=3, **options):
    return nnx.Conv(inputs, outputs, (window, window), **options)


class LeNet(nnx.Module):
    """LeCun et al. 1998, with ReLUs."""

    def __init__(self, rngs):
        self.conv1 = nnx.Conv(1, 6, (5, 5), padding="VALID", rngs=rngs)
        self.conv2 = nnx.Conv(6, 16, (5, 5), padding="VALID", rngs=rngs)
        self.fc = nnx.List([nnx.Linear(a, b, rngs=rngs) for a, b in ((64, 32), (32, 24), (24, 10))])

    def __call__(self, x):
        x = nnx.max_pool(nnx.relu(self.conv1(x / 255.0)), (2, 2), (2, 2))
        x = nnx.avg_pool(nnx.relu(self.conv2(x)), (2, 2), (2, 2))
        x = x.reshape(x.shape[0], -1)
        for layer in self.fc[:-1]:
            x = nnx.relu(layer(x))
        return nnx.log_softmax(self.fc[-1](x))


class Vgg(nnx.Module):
    """Pairs of convolutions with batch norms, dropout before the classifier."""

    def __init__(self, rngs):
        sides = ((3, 8), (8, 8), (8, 16), (16, 16))
        self.convs = nnx.List([same_conv(a, b, use_bias=False, rngs=rngs) for a, b in sides])
        self.norms = nnx.List([nnx.BatchNorm(b, rngs=rngs) for _, b in sides])
        self.dropout = nnx.Dropout(0.5)
        self.hidden = nnx.Linear(16 * 9, 20, rngs=rngs)
        self.norm = nnx.BatchNorm(20, rngs=rngs)
        self.fc = nnx.Linear(20, 7, rngs=rngs)

    def __call__(self, x):
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = nnx.relu(norm(conv(x)))
            if i % 2:
                x = nnx.max_pool(x, (2, 2), strides=(2, 2))
        x = self.dropout(x.reshape(len(x), -1))
        return self.fc(self.dropout(nnx.relu(self.norm(self.hidden(x)))))


class Branches(nnx.Module):
    """An inception block, a residual one, and one with its norm first."""

    def __init__(self, rngs):
        self.stem = same_conv(3, 8, strides=2, rngs=rngs)
        self.one = same_conv(8, 4, 1, rngs=rngs)
        self.three = same_conv(8, 6, rngs=rngs)
        self.pooled = same_conv(8, 6, 1, rngs=rngs)
        self.inner = same_conv(16, 16, rngs=rngs)
        self.norm = nnx.BatchNorm(16, rngs=rngs)
        self.first = nnx.BatchNorm(16, rngs=rngs)
        self.last = same_conv(16, 12, 1, rngs=rngs)
        self.fc = nnx.Linear(12, 5, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.stem(x))
        around = self.pooled(nnx.max_pool(x, (3, 3), (1, 1), "SAME"))
        x = nnx.relu(jnp.concatenate([self.one(x), self.three(x), around], axis=-1))
        x = nnx.relu(x + self.norm(self.inner(x)))
        x = self.last(nnx.relu(self.first(x)))
        return nnx.softmax(self.fc(nnx.relu(x).mean((1, 2))))


class Mobile(nnx.Module):
    """Inverted bottlenecks with ReLU6."""

    def __init__(self, rngs):
        self.stem = same_conv(3, 6, strides=2, use_bias=False, rngs=rngs)
        self.expand = same_conv(6, 12, 1, use_bias=False, rngs=rngs)
        self.apart = same_conv(12, 12, feature_group_count=12, use_bias=False, rngs=rngs)
        self.project = same_conv(12, 6, 1, use_bias=False, rngs=rngs)
        self.norms = nnx.List([nnx.BatchNorm(n, rngs=rngs) for n in (6, 12, 12, 6)])
        self.fc = nnx.Linear(6, 5, rngs=rngs)

    def __call__(self, x):
        first, second, third, last = self.norms
        x = nnx.relu6(first(self.stem(x)))
        y = nnx.relu6(second(self.expand(x)))
        y = nnx.relu6(third(self.apart(y)))
        x = x + last(self.project(y))
        return self.fc(x.mean((1, 2)))


class Sound(nnx.Module):
    """Convolutions of a signal."""

    def __init__(self, rngs):
        self.conv1 = nnx.Conv(2, 6, (5,), strides=2, rngs=rngs)
        self.conv2 = nnx.Conv(6, 8, (3,), kernel_dilation=2, padding="VALID", rngs=rngs)
        self.fc = nnx.Linear(8, 4, rngs=rngs)

    def __call__(self, x):
        x = nnx.max_pool(nnx.relu(self.conv1(x)), (3,), strides=(2,))
        return nnx.sigmoid(self.fc(nnx.relu(self.conv2(x)).max(axis=1)))


class Perceptron(nnx.Module):
    """Dense layers alone."""

    def __init__(self, rngs):
        self.hidden = nnx.Linear(12, 16, rngs=rngs)
        self.fc = nnx.Linear(16, 3, rngs=rngs)

    def __call__(self, x):
        return jnp.argmax(self.fc(nnx.relu(self.hidden(x))), axis=-1)


class Linen(linen.Module):
    """The older interface: what it is called with says whether it is in training."""

    @linen.compact
    def __call__(self, x, train: bool):
        x = linen.Conv(8, (3, 3), strides=2)(x)
        x = linen.relu(linen.BatchNorm(use_running_average=not train)(x))
        x = linen.avg_pool(x, (2, 2), strides=(2, 2))
        x = linen.relu(linen.DenseGeneral(12, axis=(-3, -2, -1))(x))
        x = linen.Dropout(0.5, deterministic=not train)(x)
        return linen.Dense(4)(x)


NNX = {
    LeNet: (20, 20, 1), Vgg: (12, 12, 3), Branches: (10, 8, 3), Mobile: (9, 9, 3), Sound: (40, 2),
    Perceptron: (12,),
}  # fmt: skip


def drawn(model_class, seed=0):
    """A model with random numbers in the place of parameters and statistics, made at once."""
    graph, state = nnx.split(nnx.eval_shape(lambda: model_class(nnx.Rngs(0))))
    return nnx.merge(graph, jax.tree.map_with_path(_draw(seed), state))


def drawn_linen(example, seed=0):
    """A module and its variables, likewise."""
    shapes = jax.eval_shape(lambda: Linen().init(jax.random.key(0), example, train=False))
    return Linen(), jax.tree.map_with_path(_draw(seed), shapes)


def _draw(seed):
    rng = np.random.default_rng(seed)

    def number(path, of):
        name = [str(part) for part in path if str(part) != ".value"][-1]
        if "var" in name or "scale" in name:
            return jnp.asarray(rng.uniform(0.5, 1.5, of.shape), of.dtype)
        size = math.prod(of.shape[:-1]) / 2 if "kernel" in name else 16
        return jnp.asarray(rng.normal(size=of.shape) / size**0.5, of.dtype)

    return number
