"""`python -m nets.sensitivity --net resnet32`: how much fewer bits hurt, tensor by tensor.

Hutchinson's estimator of Hessian traces, E[v^T H v] = Tr(H) for random signs v, on the float network
with batch norm folded in. One tensor at a time: in a network of ReLUs and linear layers its own block of
the Hessian has no negative eigenvalue, so every sample counts, where the blocks between tensors would
drown those of small traces. Every sample takes fresh images, so the standard error covers both.
Written as the JSON file that `pqjax search` reads.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import pathlib
import sys
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from nets.architecture import ARCHITECTURES
from nets.data import INPUT_SCALE_BITS, integer_input, load_cifar
from nets.fold import Folded, equalize, fold_batch_norm
from nets.folded import FoldedNet, folded_rules, stated_caps
from nets.loop import Images
from nets.malloc import keep_freed_memory
from nets.ops import INPUT, Architecture, walk
from nets.pretrain import load_float
from nets.quantized import RESIDUAL_BITS
from nets.quantizer import best_activation_scale, best_weight_scale
from nets.steps import Cut, Fit, shapes, steps
from pqjax.errors import PqjaxError
from pqjax.graph.sensitivity import Sensitivities, Sensitivity

WEIGHT_BITS = range(2, 9)
ACTIVATION_BITS = range(2, 9)
RESIDUAL_WIDTHS = range(2, 17)
CHECKPOINTS = pathlib.Path(__file__).parent / "checkpoints"

Point = dict[str, dict[str, jax.Array]]  # tensors by kind and name; the place the Hessian is taken
_FEWEST = 8  # samples before the standard error is believed


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How long to sample.

    Attributes:
      tolerance: standard error over trace at which a tensor is settled.
      most: samples at most; what is not settled then keeps the standard error it has.
      batch: images per sample.
      seed: of images and signs.
    """

    tolerance: float = 0.1
    most: int = 50
    batch: int = 32
    seed: int = 0

    def __post_init__(self):
        if not (self.tolerance > 0 and self.most >= _FEWEST and self.batch >= 1):
            raise ValueError(
                f"a tolerance above 0, at least {_FEWEST} samples and 1 image expected, got {self}"
            )


def shifted(architecture: Architecture) -> tuple[dict[str, Fit | Cut], dict[str, Fit]]:
    """What layers read at the activations' width, and what is added or averaged later, by name."""
    operands: dict[str, Fit | Cut] = {}
    residuals: dict[str, Fit] = {}
    for step in steps(architecture):
        if isinstance(step, Fit) and step.role in ("residual", "averaged"):
            residuals[step.name] = step
        elif isinstance(step, Cut) or (
            isinstance(step, Fit) and (step.role == "activations" or not architecture.signed)
        ):  # what dense layers read keeps 8 bits where formats are signed
            operands[step.name] = step
    return operands, residuals


def logits(architecture: Architecture, biases: list, point: Point, x: jax.Array) -> jax.Array:
    """The folded float network in f32, with `point`'s kernels and shifts of its activations.

    Args:
      architecture: its shape.
      biases: of every layer.
      point: "weights" by layer; "operands" and "residuals", (b, h, w, c), which are added to what
        layers read of a tensor, and to a tensor itself.
      x: real inputs, f32 (b, H, W, C).
    """
    layers = zip(architecture.layers, biases, strict=True)
    weights = {layer.name: (point["weights"][layer.name], bias) for layer, bias in layers}
    rules = folded_rules(weights, stated_caps(architecture))
    shifts = point["operands"] | point["residuals"]

    def shift(step: Fit | Cut, y: jax.Array) -> jax.Array:
        return y + shifts[step.name] if step.name in shifts else y

    return walk(steps(architecture), {**rules, Fit: shift, Cut: shift}, {INPUT: x})


def loss(
    architecture: Architecture, biases: list, point: Point, x: jax.Array, y: jax.Array
) -> jax.Array:
    """Mean cross entropy over a batch."""
    answer = logits(architecture, biases, point, x)
    return optax.softmax_cross_entropy_with_integer_labels(answer, y).mean()


def start(architecture: Architecture, folded: Folded, batch: int) -> Point:
    """The network as it is: its kernels, and activations shifted by nothing."""
    kernels = [jnp.asarray(kernel, jnp.float32) for kernel, _ in folded]
    point: Point = {
        "weights": dict(zip((x.name for x in architecture.layers), kernels, strict=True)),
        "operands": {},
        "residuals": {},
    }
    for kind, found in zip(("operands", "residuals"), shifted(architecture), strict=True):
        for name in found:
            shape = (batch, *shapes(architecture)[name])
            point[kind][name] = jnp.zeros(shape, jnp.float32)
    return point


def curvature(loss_of: Callable[..., jax.Array], point: Point, signs: Point, *data) -> jax.Array:
    """The number v . H v: forward-mode derivative of the gradient along v."""
    gradient = jax.grad(lambda p: loss_of(p, *data))
    _, product = jax.jvp(gradient, (point,), (signs,))
    return jax.tree.reduce(jnp.add, jax.tree.map(jnp.vdot, signs, product))


def random_signs(key: jax.Array, point: Point, place: jax.Array) -> Point:
    """A Rademacher vector for the tensor at that place among the leaves, zero for all others."""
    leaves, structure = jax.tree.flatten(point)
    drawn = [
        (i == place) * jax.random.rademacher(jax.random.fold_in(key, i), leaf.shape, leaf.dtype)
        for i, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(structure, drawn)


@dataclasses.dataclass(frozen=True)
class Traces:
    """Traces of all tensors' Hessians, their standard errors and samples, in the leaves' order."""

    point: Point
    mean: tuple[float, ...]
    error: tuple[float, ...]
    samples: tuple[int, ...]

    def by_name(self, kind: str) -> dict[str, tuple[float, float, int]]:
        """Average trace, its standard error and the elements (of one image) by tensor."""
        places = jax.tree.unflatten(jax.tree.structure(self.point), range(len(self.mean)))
        found = {}
        for name, i in places[kind].items():
            shape = self.point[kind][name].shape
            n = int(np.prod(shape if kind == "weights" else shape[1:]))
            found[name] = (self.mean[i] / n, self.error[i] / n, n)
        return found


def estimate_traces(
    loss_of: Callable[..., jax.Array], point: Point, batches: Iterator[tuple], sampling: Sampling
) -> Traces:
    """Samples each tensor until its standard error is below the tolerance, or `most` are drawn.

    Args:
      loss_of: (point, *batch) -> mean loss.
      point: where the Hessian is taken.
      batches: what `loss_of` takes besides; each is used once.
      sampling: when to stop.
    """

    @jax.jit
    def sample(key, place, *data):
        return curvature(loss_of, point, random_signs(key, point, place), *data)

    root, found = jax.random.key(sampling.seed), []
    tensors_of = len(jax.tree.leaves(point))
    bar = tqdm(range(tensors_of), unit="tensor", mininterval=1.0, dynamic_ncols=True)
    for place in bar:
        drawn: list[float] = []
        key = jax.random.fold_in(root, place)
        while not _settled(drawn, sampling):
            one = sample(jax.random.fold_in(key, len(drawn)), np.int32(place), *next(batches))
            drawn.append(float(one))
        found.append((float(np.mean(drawn)), _error(drawn), len(drawn)))
    mean, error, samples = zip(*found, strict=True)
    return Traces(point, mean, error, samples)


def _settled(drawn: list[float], sampling: Sampling) -> bool:
    if len(drawn) < _FEWEST:
        return False
    within = _error(drawn) <= sampling.tolerance * abs(float(np.mean(drawn)))
    return within or len(drawn) >= sampling.most


def _error(drawn: list[float]) -> float:
    return float(np.std(drawn, ddof=1) / np.sqrt(len(drawn)))


def weight_errors(kernel: np.ndarray) -> dict[int, float]:
    """||Q_b(W) - W||^2 for every width, at the power-of-two scale of least error."""
    found = {}
    for bits in WEIGHT_BITS:
        low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        unit = 2.0 ** best_weight_scale(kernel, bits)
        quantized = np.clip(np.floor(kernel * unit + 0.5), low, high) / unit
        found[bits] = float(np.square(quantized - kernel, dtype=np.float64).sum())
    return found


def activation_errors(
    real: np.ndarray, widths: range, signed: bool, negative: bool = False
) -> dict[int, float]:
    """||Q_b(x) - x||^2 per image for every width (of which a sign, known or not, takes a bit)."""
    found = {}
    for bits in widths:
        whole, scale = _fitted(real, bits - (signed or negative), negative)
        found[bits] = _squared(whole / 2.0**scale, real)
    return found


def cut_errors(
    real: np.ndarray, widths: range, signed: bool, negative: bool = False
) -> dict[int, float]:
    """The same where linear layers read the top bits of a residual of `RESIDUAL_BITS`."""
    whole, scale = _fitted(real, RESIDUAL_BITS - (signed or negative), negative)
    found = {}
    for bits in widths:
        drop = RESIDUAL_BITS - bits
        found[bits] = _squared(np.floor(whole / 2.0**drop) * 2.0 ** (drop - scale), real)
    return found


def _fitted(real: np.ndarray, bits: int, negative: bool) -> tuple[np.ndarray, int]:
    """Integers of so many bits and a sign, and the scale of least squared error."""
    scale, high = best_activation_scale(real, bits, negative=negative), 2**bits - 1
    low = -high - 1 if negative else 0
    return np.clip(np.floor(real * 2.0**scale + 0.5), low, high), scale


def _squared(quantized: np.ndarray, real: np.ndarray) -> float:
    return float(np.square(quantized - real, dtype=np.float64).sum() / len(real))


def measure(
    architecture: Architecture, folded: Folded, data: Images, sampling: Sampling, calibration: int
) -> Sensitivities:
    """Traces and quantization errors of all tensors of a network.

    Args:
      architecture: its shape.
      folded: its kernels and biases as quantization starts from them, see `nets.fold`.
      data: labelled images, of the training set.
      sampling: how long to sample.
      calibration: images on which the activations' errors are measured, the first ones.
    """
    biases = [jnp.asarray(bias, jnp.float32) for _, bias in folded]
    point = start(architecture, folded, sampling.batch)
    loss_of = functools.partial(loss, architecture, biases)
    traces = estimate_traces(loss_of, point, _batches(data, sampling, architecture.zero), sampling)
    kernels = {x.name: kernel for x, (kernel, _) in zip(architecture.layers, folded, strict=True)}
    weights = {
        name: _entry(*found, weight_errors(kernels[name]))
        for name, found in traces.by_name("weights").items()
    }
    real = FoldedNet.of(architecture, folded).values(
        integer_input(data.images[:calibration], architecture.zero)
    )
    operands, added = shifted(architecture)
    signed = architecture.signed
    activations, residuals = {}, {}
    for name, found in traces.by_name("operands").items():
        step, errors, read = operands[name], activation_errors, name
        if isinstance(step, Cut):
            errors, read = cut_errors, step.sources[0]
        fit = step.fit if isinstance(step, Cut) else step
        table = errors(np.asarray(real[read]), ACTIVATION_BITS, signed, fit.negative)
        activations[name] = _entry(*found, table)
    for name, found in traces.by_name("residuals").items():
        table = activation_errors(
            np.asarray(real[name]), RESIDUAL_WIDTHS, signed, added[name].negative
        )
        residuals[name] = _entry(*found, table)
    settings = {
        **dataclasses.asdict(sampling), "samples": sum(traces.samples), "calibration": calibration,
    }  # fmt: skip
    return Sensitivities(architecture.name, weights, activations, residuals, settings)


def _entry(trace: float, error: float, n: int, errors: dict[int, float]) -> Sensitivity:
    return Sensitivity(trace, error, n, {bits: trace * e for bits, e in errors.items()})


def _real(images: np.ndarray, zero: int) -> np.ndarray:
    return integer_input(images, zero).astype(np.float32) / 2**INPUT_SCALE_BITS


def _batches(
    data: Images, sampling: Sampling, zero: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches of different images, in a random order that starts again when it ends."""
    rng = np.random.default_rng(sampling.seed)
    while True:
        order = rng.permutation(len(data.labels))
        for at in range(0, len(order) - sampling.batch + 1, sampling.batch):
            picked = order[at : at + sampling.batch]
            yield _real(data.images[picked], zero), data.labels[picked].astype(np.int32)


def main(argv: list[str] | None = None) -> int:
    """Runs the command; a typed error becomes one line and exit code 1."""
    built = argparse.ArgumentParser(prog="python -m nets.sensitivity", description=__doc__)
    built.add_argument("--net", choices=sorted(ARCHITECTURES), default="minionn")
    built.add_argument("--float", type=pathlib.Path, dest="network", help="float checkpoint")
    built.add_argument("--tolerance", type=float, default=Sampling.tolerance)
    built.add_argument("--most", type=int, default=Sampling.most, help="samples at most")
    built.add_argument("--batch", type=int, default=Sampling.batch, help="images per sample")
    built.add_argument("--seed", type=int, default=Sampling.seed)
    built.add_argument("--calibration", type=int, default=256, help="images for activations")
    built.add_argument("--out", type=pathlib.Path, help="JSON file to write")
    args = built.parse_args(argv)
    path = args.network or CHECKPOINTS / f"{args.net}_float.npz"
    out = args.out or CHECKPOINTS / f"{args.net}_sensitivity.json"
    try:
        sampling = Sampling(args.tolerance, args.most, args.batch, args.seed)
        architecture = ARCHITECTURES[args.net]
        net, _ = load_float(path, architecture)
        folded = equalize(fold_batch_norm(net), architecture)
        data = Images(*load_cifar(architecture.data, "train"))
        found = measure(architecture, folded, data, sampling, args.calibration)
        dataclasses.replace(found, settings={**found.settings, "float": path.name}).write(out)
    except (PqjaxError, ValueError) as error:
        print(f"nets.sensitivity: {error}", file=sys.stderr)
        return 1
    for kind in ("weights", "activations", "residuals"):
        for name, entry in getattr(found, kind).items():
            print(f"{kind:12}{name:16}{entry.trace:12.4g} +- {entry.standard_error:.2g}")
    print(f"wrote {out.name}: {found.settings['samples']} samples")
    return 0


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
