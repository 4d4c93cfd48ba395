"""Quantization after training: ranges, bias correction, and reconstruction block by block.

Nothing here needs labels: a float network, its quantized form and a few hundred pictures. Formats
have one power-of-two scale a tensor; what channels and tensors need beyond that is folded into the
weights around them first (`nets.folded`), exactly.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from nets.architecture import INPUT, Architecture, Average, Layer
from nets.data import INPUT_SCALE_BITS
from nets.folded import FoldedNet, Stream, layer_value, levels, streams
from nets.quantized import QuantLayer, QuantNet, Scaled, Widths
from nets.quantizer import best_activation_scale, best_weight_scale, power_of_two
from pqjax.errors import GraphError

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a network is quantized.

    Attributes:
      images: pictures that ranges and biases are fitted to.
      pool: pictures that blocks are fitted to, those among them.
      steps: of each block's reconstruction; 0 for none.
      batch: pictures a step.
      rate: largest step of a weight, in units of its last bit.
      seed: of the batches.
    """

    images: int = 32
    pool: int = 256
    steps: int = 0
    batch: int = 16
    rate: float = 0.01
    seed: int = 0


def quantized(
    net: FoldedNet, widths: Widths, x: np.ndarray, recipe: Recipe, say: Say = lambda text: None
) -> QuantNet:
    """A quantized network.

    Args:
      net: in floating point.
      widths: bits of every tensor.
      x: integer pictures (n, side, side, 3) to calibrate on; none is asked for its label.
      recipe: how.
      say: told of every block.
    """
    few = x[: recipe.images]
    student = QuantNet(net.architecture, widths)
    net = ranged(net, student, few)
    fit(student, net, few)
    if recipe.steps:
        reconstruct(student, net, x, recipe, say)
    return student


def ranged(net: FoldedNet, student: QuantNet, x: np.ndarray) -> FoldedNet:
    """Scales every stream so that its channels have one range, and that is what its format holds.

    The best range is the one of least squared error among 40, on the values of the float network; for
    residuals, which convolutions read cut short, that of the error of what is read.
    """
    values = net.values(x)
    layers = {layer.name: layer for layer in net.architecture.layers}
    for stream in streams(net.architecture):
        names = sorted(stream.writers)
        bits = min(student.magnitude(layers[name]) for name in names)
        if stream.writers & net.architecture.residuals and not _averaged(net, stream):
            bits = max(bits - (student.widths.residual - student.widths.activations), 2)
        factors = levels(net, values, stream)
        sample = [np.ravel(np.asarray(values[name]) * factors)[::_STEP] for name in names]
        signed = any(not layers[name].relu for name in names)
        best = _best_range(np.concatenate(sample), bits, signed)
        net = net.scaled(stream, factors * np.float32(2.0 ** np.round(np.log2(best)) / best))
    return net


_STEP = 7  # of the values that ranges are searched on; divides no side or channel count


def _averaged(net: FoldedNet, stream: Stream) -> bool:
    """Whether a stream ends in an average: then it is read in full."""
    return any(isinstance(n, Average) and n.name in stream.tensors for n in net.architecture.nodes)


def _best_range(real: np.ndarray, bits: int, negative: bool) -> float:
    """The largest value of a format, as a real number, for the least squared error."""
    top = float(np.abs(real).max())
    high = 2**bits - 1
    low = -high - 1 if negative else 0
    errors = {}
    for part in np.geomspace(0.05, 1.0, 40):
        unit = part * top / (high + 1)
        fitted = np.clip(np.floor(real / unit + 0.5), low, high) * unit
        errors[unit * (high + 1)] = float(np.square(fitted - real, dtype=np.float64).mean())
    return min(errors, key=errors.__getitem__)


def _walk(
    student: QuantNet, net: FoldedNet
) -> Iterator[tuple[Layer, QuantLayer, tuple[np.ndarray, np.ndarray], np.ndarray | None]]:
    """Layers of both networks side by side: description, quantized, (kernel, bias), cap."""
    yield from zip(net.architecture.layers, student.layers, net.weights, net.caps, strict=True)


def fit(student: QuantNet, net: FoldedNet, x: np.ndarray) -> None:
    """Puts weights into `student`, chooses scales, and corrects biases by what quantization shifts.

    Layer by layer: each sees its already quantized predecessors, and its bias moves by the mean by which
    its sums differ from the float network's, channel by channel.

    Raises:
      GraphError: a residual has a finer scale than the accumulator it is added to.
    """
    ours, theirs = _inputs(x)
    layers = _walk(student, net)
    last_use = {n.source: i for i, n in enumerate(net.architecture.nodes)}
    last_use |= {
        n.plus: i for i, n in enumerate(net.architecture.nodes) if isinstance(n, Layer) and n.plus
    }
    for at, node in enumerate(net.architecture.nodes):
        if isinstance(node, Layer):
            _, layer, (kernel, bias), cap = next(layers)
            layer.kernel[...], layer.bias[...] = jnp.asarray(kernel), jnp.asarray(bias)
            layer.weight_scale[...] = jnp.float32(best_weight_scale(kernel, layer.bits))
            operand = student.operand(node.source, ours)
            product = layer.product(operand, False)
            real = product.integers * power_of_two(-product.scale)
            linear = dataclasses.replace(node, relu=False, pool=1)
            wanted = layer_value(linear, kernel, bias, None, theirs[node.source])
            axes = tuple(range(real.ndim - 1))
            layer.bias[...] = layer.bias[...] + (wanted - real).mean(axes)
            plus = ours[node.plus] if node.plus else None
            acc = layer(operand, plus, False)
            if plus is not None and acc.scale < plus.scale:
                raise GraphError(
                    f"{node.name}: the residual {node.plus} has scale {int(plus.scale)}, finer than "
                    f"the accumulator's {int(acc.scale)}: use more weight bits or fewer residual bits"
                )
            other = theirs[node.plus] if node.plus else None
            theirs[node.name] = layer_value(node, kernel, bias, cap, theirs[node.source], other)
            if node.window:
                best = best_activation_scale(
                    np.ravel(theirs[node.name])[::_STEP], student.magnitude(node), "saturate",
                    negative=not node.relu,
                )  # fmt: skip
                scale = layer.out_scale[...] = jnp.float32(min(best, int(acc.scale)))
                layer.cap = _cap(cap, int(scale), student.magnitude(node))
                ours[node.name] = student.fitted(layer, acc, scale)
        else:
            ours[node.name] = student.between(node, ours)
            theirs[node.name] = _between(node, theirs)
        for name in [name for name, end in last_use.items() if end == at]:
            ours.pop(name, None)
            theirs.pop(name, None)


def _cap(cap: np.ndarray | None, scale: int, bits: int) -> int | None:
    """A ReLU's cap as an integer, if it lies within its format.

    It is that of the channels of the largest range; others, which were scaled up, do not reach theirs.
    """
    if cap is None:
        return None
    high = round(float(cap.min()) * 2.0**scale)
    return high if high < 2**bits - 1 else None


def _inputs(x: np.ndarray) -> tuple[dict[str, Scaled], dict[str, jax.Array]]:
    real = jnp.asarray(x).astype(jnp.float32)
    integers = Scaled(real.astype(jnp.bfloat16), jnp.float32(INPUT_SCALE_BITS))
    return {INPUT: integers}, {INPUT: real * 2.0**-INPUT_SCALE_BITS}


def _between(node, values: dict[str, jax.Array]) -> jax.Array:
    if not isinstance(node, Average):
        raise GraphError(f"{node.name}: nothing but averages lies between the layers here")
    return values[node.source].mean((1, 2), keepdims=True)


def blocks(architecture: Architecture) -> list[tuple[Layer, ...]]:
    """Layers that are fitted together: those of a block, and each outside alone; not the FC."""
    found: list[list[Layer]] = []
    for layer in architecture.convs:
        if found and "." in layer.name and _block(found[-1][0]) == _block(layer):
            found[-1].append(layer)
        else:
            found.append([layer])
    return [tuple(block) for block in found]


def _block(layer: Layer) -> str:
    return layer.name.split(".")[0]


def reconstruct(
    student: QuantNet, net: FoldedNet, x: np.ndarray, recipe: Recipe, say: Say = lambda text: None
) -> None:
    """Moves each block's weights until its output is nearest to the float network's.

    Block by block (Li et al., arXiv 2102.05426): its input comes from the quantized blocks before it,
    its aim from the float network; roundings pass gradients straight through. Adam's steps are counted
    in units of each weight's last bit.

    Args:
      student: changed in place.
      net: what it is a quantized form of, see `fit`.
      x: integer pictures.
      recipe: steps and sizes.
      say: told the error of every block before and after.
    """
    ours, theirs = _inputs(x)
    places = {layer.name: i for i, layer in enumerate(net.architecture.layers)}
    rng = np.random.default_rng(recipe.seed)
    for block in blocks(net.architecture):
        indices = [places[layer.name] for layer in block]
        step, forward = _compiled(student, block)
        inputs = {name: ours[name] for name in _outside(block)}
        aim = _float_block(net, block, indices, theirs)
        state = nnx.state(nnx.List([student.layers[i] for i in indices]))
        start, moments = jax.tree.map(jnp.array, state), _OPTIMIZER.init(state)
        made = _in_parts(forward, start, inputs, recipe.batch)
        before = _error(made, aim)
        for t in range(recipe.steps):
            pick = np.sort(rng.choice(len(x), min(recipe.batch, len(x)), replace=False))
            part = {n: Scaled(v.integers[pick], v.scale) for n, v in inputs.items()}
            rate = recipe.rate * 0.5 * (1 + np.cos(np.pi * t / recipe.steps))
            state, moments, _ = step(state, moments, part, aim[pick], jnp.float32(rate))
        moved = _in_parts(forward, state, inputs, recipe.batch)
        after = _error(moved, aim)
        if after < before:
            made = moved
        else:  # a block is never left worse than it was
            state, after = start, before
        _put(student, indices, state)
        say(f"{_block(block[0])}: error {before:.4f} to {after:.4f}")
        ours = _kept(ours, net.architecture, block)
        theirs = _kept(theirs, net.architecture, block)
        ours[block[-1].name] = made
        theirs[block[-1].name] = aim


_OPTIMIZER = optax.scale_by_adam()


def _error(made: Scaled, aim: jax.Array) -> float:
    """Mean squared error over all pictures, of the aim's variance."""
    real = made.integers * power_of_two(-made.scale)
    return float(jnp.square(real - aim).mean() / jnp.square(aim - aim.mean()).mean())


def _outside(block: tuple[Layer, ...]) -> set[str]:
    """Tensors that a block reads but does not make."""
    read = {layer.source for layer in block} | {layer.plus for layer in block if layer.plus}
    return read - {layer.name for layer in block}


def _kept(values: dict, architecture: Architecture, block: tuple[Layer, ...]) -> dict:
    """Tensors that later layers still read."""
    names = [layer.name for layer in architecture.layers]
    later = architecture.layers[names.index(block[-1].name) + 1 :]
    needed = {layer.source for layer in later} | {layer.plus for layer in later}
    return {name: value for name, value in values.items() if name in needed}


def _float_block(net: FoldedNet, block, indices, theirs) -> jax.Array:
    """The float network's output of a block, picture by picture in parts."""

    @jax.jit
    def run(values, weights, caps):
        for layer, (kernel, bias), cap in zip(block, weights, caps, strict=True):
            plus = values[layer.plus] if layer.plus else None
            value = layer_value(layer, kernel, bias, cap, values[layer.source], plus)
            values = {**values, layer.name: value}
        return values[block[-1].name]

    weights, caps = [net.weights[i] for i in indices], [net.caps[i] for i in indices]
    given = {name: theirs[name] for name in _outside(block)}
    n = next(iter(given.values())).shape[0]
    return jnp.concatenate(
        [run({k: v[i : i + 16] for k, v in given.items()}, weights, caps) for i in range(0, n, 16)]
    )


def _compiled(student: QuantNet, block: tuple[Layer, ...]):
    """One optimization step of a block, and its forward pass; both on the layers' state."""
    layers = [layer for layer in student.layers if layer.layer in block]
    graph, _ = nnx.split(nnx.List(layers))

    def forward(state, values: dict[str, Scaled]) -> tuple[jax.Array, jax.Array]:
        made = dict(values)
        for layer in nnx.merge(graph, state):
            spec = layer.layer
            plus = made[spec.plus] if spec.plus else None
            acc = layer(student.operand(spec.source, made), plus, False)
            made[spec.name] = student.fitted(layer, acc, jnp.round(layer.out_scale[...]))
        last = made[block[-1].name]
        return last.integers, last.scale

    def loss(state, values, aim):
        integers, scale = forward(state, values)
        real = integers.astype(jnp.float32) * power_of_two(-scale)
        return jnp.square(real - aim).mean() / jnp.square(aim - aim.mean()).mean()

    def step(state, moments, values, aim, rate):
        error, gradient = jax.value_and_grad(loss)(state, values, aim)
        updates, moments = _OPTIMIZER.update(gradient, moments)
        return _moved(state, updates, rate), moments, error

    return jax.jit(step), jax.jit(forward)


def _moved(state, updates, rate):
    """Weights by `rate` of their last bit, biases by as much of the output's; scales stay."""
    moved: Any = nnx.to_pure_dict(state)
    by: Any = nnx.to_pure_dict(updates)
    for i, layer in moved.items():
        units = {"kernel": layer["weight_scale"], "bias": layer["out_scale"]}
        for name, scale in units.items():
            layer[name] = layer[name] - rate * power_of_two(-scale) * by[i][name]
    nnx.replace_by_pure_dict(state, moved)
    return state


def _put(student: QuantNet, indices: list[int], state) -> None:
    found: Any = nnx.to_pure_dict(state)
    for place, values in found.items():
        layer = student.layers[indices[place]]
        layer.kernel[...], layer.bias[...] = values["kernel"], values["bias"]


def _in_parts(forward, state, inputs: dict[str, Scaled], batch: int) -> Scaled:
    n = next(iter(inputs.values())).integers.shape[0]
    parts, scale = [], None
    for at in range(0, n, batch):
        part = {k: Scaled(v.integers[at : at + batch], v.scale) for k, v in inputs.items()}
        integers, scale = forward(state, part)
        parts.append(integers)
    assert scale is not None
    return Scaled(jnp.concatenate(parts), scale)
