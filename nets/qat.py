"""Quantization-aware training: Adam on folded weights, distilled from the float network."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from nets.accumulator import coarsen, excess
from nets.checkpoint import load_tree
from nets.floating import FloatNet
from nets.fold import Folded, equalize, fold_batch_norm
from nets.loop import Logits, State, Step
from nets.ops import Architecture
from nets.quantized import QuantNet, Widths, calibrate


@dataclasses.dataclass(frozen=True)
class QatRecipe:
    """Settings of the optimizer and of distillation."""

    peak_rate: float = 0.01  # Adam's step, relative to the initial size of each tensor
    scale_rate: float = 0.01  # Adam's step for log2 scales, where these are learned
    warmup: float = 0.05
    distill: float = 0.5  # weight of the teacher's answer; 0 trains on labels alone
    temperature: float = 2.0
    equalize: float = 1.0
    accumulators: tuple[
        int, ...
    ] = ()  # bits asked of every layer's sum, see `accumulator.parse_bits`
    narrowing: float = 0.05  # weight of what exceeds them in the loss


def qat_task(
    teacher: FloatNet, widths: Widths, recipe: QatRecipe, steps: int, calibration: np.ndarray
) -> tuple[State, Step, Logits]:
    """Builds the calibrated initial state {params, optimizer}, the jitted step and jitted logits.

    Args:
      teacher: trained float network; also where the weights start from.
      widths: bits of every layer.
      recipe: optimizer settings.
      steps: length of the learning-rate schedule.
      calibration: int8 images (n, h, w, 3) on which the scales are chosen.
    """
    folded = equalize(fold_batch_norm(teacher), teacher.architecture, strength=recipe.equalize)
    teacher_def, teacher_state = nnx.split(teacher)

    def answer(x):
        net = nnx.merge(teacher_def, teacher_state, copy=True)
        net.eval()
        return net(x)

    return student_task(teacher.architecture, folded, answer, widths, recipe, steps, calibration)


def student_task(
    architecture: Architecture,
    folded: Folded,
    answer: Callable[[jax.Array], jax.Array],
    widths: Widths,
    recipe: QatRecipe,
    steps: int,
    calibration: np.ndarray,
) -> tuple[State, Step, Logits]:
    """`qat_task` for a float network of any making.

    Args:
      architecture: the shape of both.
      folded: its kernels and biases.
      answer: its logits for int8 images, jit-compatible: what the student is distilled from.
      widths: as for `qat_task`, like all that follows.
      recipe: optimizer settings.
      steps: length of the learning-rate schedule.
      calibration: int8 images (n, h, w, 3).
    """
    with jax.default_device(jax.devices("cpu")[0]):  # step by step, which other devices are slow at
        student = QuantNet(architecture, widths)
        calibrate(student, folded, jnp.asarray(calibration))
        if recipe.accumulators:
            coarsen(student, recipe.accumulators)
    graphdef, template = nnx.split(student)
    params = jax.tree.map(jnp.array, nnx.to_pure_dict(template))
    rate = optax.linear_onecycle_schedule(
        steps, recipe.peak_rate, pct_start=recipe.warmup, pct_final=1.0, div_factor=10.0,
        final_div_factor=1e3,
    )  # fmt: skip
    scale_unit = recipe.scale_rate / recipe.peak_rate if widths.learn_scales else 0.0
    # Layers differ in size by 2^6 because their scales do, so Adam's step is relative.
    units = jax.tree.map(
        lambda p: np.float32(np.sqrt(np.square(p).mean()) + 1e-3 if p.ndim else scale_unit), params
    )
    optimizer = optax.chain(optax.adam(rate, b2=0.99), _scaled(units))

    def network(params):
        state = jax.tree.map(lambda leaf: leaf, template)
        nnx.replace_by_pure_dict(state, params)
        return nnx.merge(graphdef, state, copy=True)

    def loss_of(params, x, y, target):
        net = network(params)
        logits = net(x)
        loss = optax.softmax_cross_entropy(logits, y).mean()
        if target is not None:
            soft = jax.nn.log_softmax(target / recipe.temperature)
            own = jax.nn.log_softmax(logits / recipe.temperature)
            apart = (jnp.exp(soft) * (soft - own)).sum(1).mean() * recipe.temperature**2
            loss = (1 - recipe.distill) * loss + recipe.distill * apart
        if recipe.accumulators:
            loss += recipe.narrowing * excess(net, recipe.accumulators)
        return loss, (logits.argmax(1) == y.argmax(1)).mean()

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state, x, y):
        target = answer(x) if recipe.distill else None
        grad = jax.value_and_grad(loss_of, has_aux=True)
        (loss, right), gradient = grad(state["params"], x, y, target)
        updates, opt = optimizer.update(gradient, state["optimizer"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        return {"params": params, "optimizer": opt}, {"loss": loss, "accuracy": right}

    @jax.jit
    def logits(state, x):
        return network(state["params"])(x)

    return {"params": params, "optimizer": optimizer.init(params)}, step, logits


def _scaled(units: dict) -> optax.GradientTransformation:
    """Multiplies every update by its tensor's unit."""
    return optax.stateless(lambda updates, _: jax.tree.map(jnp.multiply, updates, units))


def continued(state: State, path: pathlib.Path | str) -> State:
    """A fresh training state with the parameters of another one's checkpoint, scales included.

    Weight scales that belong to other widths are kept as calibrated.
    """
    before, _ = load_tree(path, state)
    own, theirs = state["params"], before["params"]
    merged = jax.tree_util.tree_map_with_path(
        lambda place, mine, other: mine if "weight_scale" in str(place) else other, own, theirs
    )
    return {**state, "params": jax.tree.map(jnp.array, merged)}


def student_of(architecture: Architecture, widths: Widths, params: dict) -> QuantNet:
    """The quantized network that a training state's parameters describe."""
    net = QuantNet(architecture, widths)
    graphdef, state = nnx.split(net)
    nnx.replace_by_pure_dict(state, params)
    return nnx.merge(graphdef, state)
