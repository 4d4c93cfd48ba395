"""Training in floating point: SGD, one-cycle learning rate, label smoothing."""

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from nets.checkpoint import fill_tree, load_arrays, save_tree
from nets.floating import FloatNet
from nets.loop import Logits, State, Step
from nets.ops import Architecture
from nets.public import import_public, is_public


@dataclasses.dataclass(frozen=True)
class FloatRecipe:
    """Settings of the optimizer and the loss."""

    peak_rate: float = 0.2
    momentum: float = 0.9
    decay: float = 5e-4
    smoothing: float = 0.05
    warmup: float = 0.2  # share of the steps in which the rate rises
    first: float = 0.1  # the first step's rate, of the peak


def float_task(
    architecture: Architecture, recipe: FloatRecipe, steps: int, seed: int
) -> tuple[State, Step, Logits]:
    """Builds the initial state {params, stats, optimizer}, the jitted step and logits."""
    graphdef, *templates = nnx.split(
        FloatNet(architecture, nnx.Rngs(seed)), nnx.Param, nnx.BatchStat
    )
    # Copies, because the step gives its input's memory away.
    params, stats = (jax.tree.map(jnp.array, nnx.to_pure_dict(t)) for t in templates)
    rate = optax.linear_onecycle_schedule(
        steps, recipe.peak_rate, pct_start=recipe.warmup, pct_final=1.0,
        div_factor=1 / recipe.first, final_div_factor=1e3,
    )  # fmt: skip
    optimizer = optax.chain(
        optax.add_decayed_weights(recipe.decay, mask=_is_kernel),
        optax.sgd(rate, momentum=recipe.momentum, nesterov=True),
    )

    def model(params, stats):
        full = [_with(t, pure) for t, pure in zip(templates, (params, stats), strict=True)]
        return nnx.merge(graphdef, *full, copy=True)

    def loss_of(params, stats, x, y):
        net = model(params, stats)
        net.train()
        logits = net(x)
        loss = optax.softmax_cross_entropy(logits, optax.smooth_labels(y, recipe.smoothing)).mean()
        new_stats = nnx.to_pure_dict(nnx.state(net, nnx.BatchStat))
        return loss, (new_stats, (logits.argmax(1) == y.argmax(1)).mean())

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state, x, y):
        grad = jax.value_and_grad(loss_of, has_aux=True)
        (loss, (stats, right)), gradient = grad(state["params"], state["stats"], x, y)
        updates, opt = optimizer.update(gradient, state["optimizer"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        return {"params": params, "stats": stats, "optimizer": opt}, {
            "loss": loss,
            "accuracy": right,
        }

    @jax.jit
    def logits(state, x):
        net = model(state["params"], state["stats"])
        net.eval()
        return net(x)

    state = {"params": params, "stats": stats, "optimizer": optimizer.init(params)}
    return state, step, logits


def save_float(path: pathlib.Path | str, state: State, meta: dict) -> None:
    """Writes parameters and batch-norm statistics; kernels in float16, vectors in float32."""
    kept = {"params": state["params"], "stats": state["stats"]}
    small = jax.tree.map(
        lambda leaf: np.asarray(leaf, np.float16 if leaf.ndim > 1 else np.float32), kept
    )
    save_tree(path, small, meta)


def load_float(path: pathlib.Path | str, architecture: Architecture) -> tuple[FloatNet, dict]:
    """Reads `save_float`'s file: the network, ready for evaluation, and its description."""
    graphdef, *templates = nnx.split(FloatNet(architecture, nnx.Rngs(0)), nnx.Param, nnx.BatchStat)
    tree, meta = _load_tree(path, [nnx.to_pure_dict(t) for t in templates])
    full = [_with(t, pure) for t, pure in zip(templates, tree.values(), strict=True)]
    net = nnx.merge(graphdef, *full)
    net.eval()
    return net, meta


def warm_started(architecture: Architecture, state: State, path: pathlib.Path | str) -> State:
    """A fresh training state whose network is `save_float`'s, or a public one's but for the FC."""
    if is_public(path):
        return {**state, **import_public(architecture, state, path, new_head=True)}
    tree, _ = _load_tree(path, [state["params"], state["stats"]])
    return {**state, **tree}


def _load_tree(path: pathlib.Path | str, like: list[Any]) -> tuple[dict[str, Any], dict]:
    arrays, meta = load_arrays(path)
    tree = fill_tree(arrays, {"params": like[0], "stats": like[1]}, path)
    return jax.tree.map(jnp.asarray, tree), meta


def _with(template: Any, pure: dict) -> Any:
    filled = jax.tree.map(lambda leaf: leaf, template)
    nnx.replace_by_pure_dict(filled, pure)
    return filled


def _is_kernel(params: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)
