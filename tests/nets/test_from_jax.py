"""Functions of JAX: whatever order their axes have; what cannot be done is refused and says what can."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from nets.importing.imported import Pixels
from nets.importing.jaxpr import from_jax, reading
from pqjax.errors import GraphError

IMAGE = (1, 6, 5, 4)
UNIT = Pixels((128.0,) * 4, (64.0,) * 4)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


KERNEL, HEAD = normal(3, 3, 4, 8), normal(8, 5) / 4


def conv(x, kernel: Any = KERNEL, spec=("NHWC", "HWIO", "NHWC"), padding: Any = "SAME", **options):
    stride = options.pop("stride", (1,) * (kernel.ndim - 2))
    return lax.conv_general_dilated(
        x, jnp.asarray(kernel), stride, padding, dimension_numbers=spec, **options
    )


def head(x):
    """Logits of an image (n, h, w, 8)."""
    return nnx.relu(x).mean((1, 2)) @ HEAD


def imported(function, shape=IMAGE, **options):
    return from_jax(function, np.zeros(shape), **{"pixels": UNIT, **options})


def kinds(function, shape=IMAGE, **options):
    """Of the operations read; that they compute the function is what `from_jax` checks itself."""
    return [op.kind for op in imported(function, shape, **options).architecture.ops]


POOL = (1, 3, 2, 1), (1, 2, 1, 1)
END = ["Relu", "GlobalAverage", "Flatten", "Dense"]
SHUFFLED = np.random.default_rng(0).permutation(8)
READ = {
    "the order of axes of other frameworks": (
        lambda x: head(conv(x.transpose(0, 3, 1, 2), spec=("NCHW", "HWIO", "NHWC"))), ["Conv", *END],
    ),
    "kernels of another order": (
        lambda x: head(conv(x, KERNEL.transpose(3, 2, 0, 1), ("NHWC", "OIHW", "HWNC")).transpose(
            2, 0, 1, 3)), ["Conv", *END],
    ),
    "channels in another order": (
        lambda x: head(conv(x[..., ::-1])), ["Conv", *END],
    ),
    "steps, dilation, groups and margins": (
        lambda x: head(conv(x, KERNEL[:, :, :2], padding=((2, 1), (0, 3)), stride=(2, 1),
                            rhs_dilation=(1, 2), feature_group_count=2)), ["Conv", *END],
    ),
    "pictures one by one": (
        jax.vmap(lambda x: head(conv(x[None]))[0]), ["Conv", *END],
    ),
    "functions in functions": (
        jax.jit(jax.checkpoint(lambda x: jax.nn.relu6(head(conv(x))))), ["Conv", *END, "Relu"],
    ),
    "layers in a loop": (
        lambda x: head(lax.scan(lambda y, k: (nnx.relu(conv(y, k)), None), conv(x),
                                normal(2, 3, 3, 8, 8) / 8)[0]),
        ["Conv", "Conv", "Relu", "Conv", *END],
    ),
    "zeros around": (
        lambda x: head(conv(jnp.pad(x, ((0, 0), (1, 2), (0, 1), (0, 0))), padding="VALID")),
        ["Conv", *END],
    ),
    "every other pixel": (
        lambda x: head(conv(nnx.relu(conv(x))[:, ::2, ::3], normal(3, 3, 8, 8))),
        ["Conv", "Relu", "Subsample", "Conv", *END],
    ),
    "channels of zeros": (
        lambda x: head(conv(x, normal(1, 1, 4, 8)) + jnp.concatenate(
            [jnp.zeros_like(x), x], -1)), ["Conv", "Pad", "Add", *END],
    ),
    "pools": (
        lambda x: head(lax.reduce_window(nnx.relu(conv(x)), -jnp.inf, lax.max, *POOL, "SAME") +
                       lax.reduce_window(nnx.relu(conv(x)), 0.0, lax.add, *POOL, "SAME") / 6.0),
        ["Conv", "Relu", "Pad", "MaxPool", "Conv", "Relu", "Pad", "AvgPool", "Add", *END[1:]],
    ),
    "sums of windows that are no averages": (
        lambda x: head(conv(nnx.avg_pool(nnx.relu(conv(x)), (2, 2)) * 3.0, normal(1, 1, 8, 8))),
        ["Conv", "Relu", "AvgPool", "Conv", *END],
    ),
    "the largest value of all pixels": (
        lambda x: nnx.relu(conv(x)).max((1, 2)) @ HEAD,
        ["Conv", "Relu", "MaxPool", "Flatten", "Dense"],
    ),
    "rows averaged": (
        lambda x: conv(x).mean(1).reshape(len(x), -1) @ normal(40, 3),
        ["Conv", "AvgPool", "Flatten", "Dense"],
    ),
    "pixels in one row": (
        lambda x: nnx.relu(conv(x).reshape(len(x), -1, 8)).mean(1) @ HEAD, ["Conv", *END],
    ),
    "a dense layer of channels first": (
        lambda x: conv(x).transpose(0, 3, 1, 2).reshape(len(x), -1) @ normal(240, 3),
        ["Conv", "Flatten", "Dense"],
    ),
    "a dense layer of some channels": (
        lambda x: jnp.split(head(conv(x)), [2], -1)[1] @ normal(3, 2), ["Conv", *END, "Dense"],
    ),
    "a dense layer on every pixel": (
        lambda x: head(jnp.einsum("kc,nhwc->nhwk", normal(8, 4), x)), ["Conv", *END],
    ),
    "weights before the input": (
        lambda x: (normal(2, 120) @ x.reshape(len(x), -1).T).T, ["Flatten", "Dense"],
    ),
    "differences and quotients": (
        lambda x: head((1.0 - conv(x)) / normal(8) - nnx.relu(conv(x))),
        ["Conv", "Conv", "Relu", "Conv", "Add", *END],
    ),
    "a ReLU that starts elsewhere": (
        lambda x: head(jnp.maximum(conv(x), 0.5)), ["Conv", "Relu", "Conv", *END[1:]],
    ),
    "a clip of either order": (
        lambda x: head(jnp.clip(conv(x), 0.0, 2.0) + jnp.maximum(jnp.minimum(conv(x), 1.0), 0)),
        ["Conv", "Relu", "Conv", "Relu", "Add", *END[1:]],
    ),
    "channels in two orders": (
        lambda x: head((y := conv(x)) + y[..., SHUFFLED]), ["Conv", "Take", "Add", *END],
    ),
    "a tensor added to itself": (lambda x: head((y := conv(x)) + y), ["Conv", *END]),
    "a norm of a flat image": (
        lambda x: nnx.relu(nnx.relu(conv(x)).reshape(len(x), -1) * normal(240) + 1) @ normal(240, 3),
        ["Conv", "Relu", "Flatten", "Dense", "Relu", "Dense"],
    ),
    "tensors that are joined flat": (
        lambda x: jnp.concatenate([conv(x).reshape(len(x), -1), head(conv(x))], 1) @ normal(245, 3),
        ["Conv", "Conv", *END[:2], "Flatten", "Dense", "Flatten", "Concat", "Dense"],
    ),
    "leaky ReLUs": (
        lambda x: jnp.where((y := nnx.leaky_relu(conv(x))) < 0, normal(8) * y, y).mean((1, 2)) @ HEAD,
        [*["Conv", "Conv", "Relu", "Add"], *["Conv", "Conv", "Relu", "Add"], "Conv", *END[1:]],
    ),
    "a ReLU by choice": (lambda x: head(jnp.where((y := conv(x)) > 0, y, 0)), ["Conv", *END]),
    "averages that do not count what is padded": (
        lambda x: head(nnx.avg_pool(conv(x), (3, 2), (2, 1), "SAME", count_include_pad=False)),
        ["Conv", "AvgPool", *END],
    ),
    "shuffled channels": (
        lambda x: head(conv(nnx.relu(conv(x)).reshape(*x.shape[:3], 2, 4).swapaxes(-1, -2).reshape(
            *x.shape[:3], 8), normal(1, 1, 4, 8), feature_group_count=2)),
        ["Conv", "Relu", "Take", "Conv", *END],
    ),
    "a choice that is known": (
        lambda x: head(lax.cond(True, lambda y: conv(y), lambda y: jnp.tanh(conv(y)), x)),
        ["Conv", *END],
    ),
}  # fmt: skip


@pytest.mark.parametrize("function, wanted", READ.values(), ids=READ)
def test_functions_are_read(function, wanted):
    assert kinds(function) == wanted


@pytest.mark.parametrize(
    "shape, image", [((3, 7), (1, 1, 7)), ((3, 7, 2), (1, 7, 2)), ((3, 5, 7, 2), (5, 7, 2))]
)
def test_examples_of_every_rank(shape, image):
    size = int(np.prod(shape[1:]))
    net = from_jax(lambda x: x.reshape(len(x), -1) @ normal(size, 2), np.zeros(shape))

    assert net.architecture.image == image


def test_the_runtime_is_the_function_before_its_head():
    net = imported(lambda x: nnx.softmax(head(conv(x))))
    x = net.pixels.real(np.random.default_rng(1).integers(0, 256, (3, *IMAGE[1:])))

    assert net.source["head"] == "softmax" and net.runtime is not None
    np.testing.assert_allclose(net.runtime(x), head(conv(x)), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(net.outputs(x), head(conv(x)), rtol=1e-4, atol=1e-4)


def other_batch(x):
    return head(conv(x)) - (head(conv(x)).mean() if len(x) > 1 else 0)


REFUSED = {
    "attention": (lambda x: nnx.relu(x @ x.transpose(0, 1, 3, 2)).mean((1, 2)),
                  "dot_general .*product of two tensors"),
    "gates": (lambda x: head(conv(x) * nnx.relu(conv(x))), "mul .*two tensors are multiplied"),
    "silu": (lambda x: head(nnx.silu(conv(x))),
        r"logistic in silu \(test_from_jax.py:\d+, <lambda>\).*ReLU6"),
    "gelu": (lambda x: head(nnx.gelu(conv(x), approximate=False)),
        r"erfc \(test_from_jax.py:\d+, <lambda>\): a smooth function"),
    "tanh": (lambda x: head(jnp.tanh(conv(x))), "tanh .*smooth function"),
    "where": (lambda x: head(jnp.where(conv(x) > 1, conv(x), 0)), "gt .*write nnx.relu"),
    "elu": (lambda x: head(nnx.elu(conv(x))), "select_n in _where .*nnx.leaky_relu"),
    "other branches": (lambda x: head(jnp.where((y := conv(x)) > 0, y, -1.0)),
        "select_n .*it chooses"),
    "masks": (lambda x: head(conv(x) * (conv(x) > 0)), "convert_element_type .*it chooses"),
    "layer norm": (lambda x: head((y := conv(x)) - y.mean(-1, keepdims=True)),
        "reduce_sum .*over channels"),
    "instance norm": (lambda x: head((y := conv(x)) / jnp.square(y).mean((1, 2), keepdims=True)),
                      "square .*running averages"),
    "softmax inside": (lambda x: nnx.softmax(head(conv(x))) @ normal(5, 3),
        "reduce_max .*left to the client"),
    "quotients": (lambda x: head(1 / conv(x)), "div .*only constants can divide"),
    "transposed convolutions": (lambda x: head(conv(x, padding=((1, 1),) * 2, lhs_dilation=(2, 2))),
        "a transposed convolution"),
    "crops": (lambda x: head(conv(x[:, 1:])), "conv_general_dilated .*cuts or turns rows"),
    "mirrors": (lambda x: head(conv(x[:, :, ::-1])), "cuts or turns columns"),
    "enlarged": (lambda x: head(conv(jnp.repeat(x, 2, axis=1))), "cuts or turns rows|repeated"),
    "resized": (lambda x: head(conv(jax.image.resize(x, (*x.shape[:1], 9, 9, 4), "linear"))),
                "dot_general .*resizing"),
    "joined rows": (lambda x: head(jnp.concatenate([conv(x), conv(x)], 1)),
        "concatenate .*another order"),
    "joined ones": (lambda x: head(conv(jnp.concatenate([x[..., :3], jnp.ones((1, 6, 5, 1))], -1))),
                    "concatenate .*(other than zero|picks channels)"),
    "padded with ones": (lambda x: head(conv(jnp.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0)),
                                                     constant_values=1.0))),
        "pad .*else than zeros"),
    "two orders": (lambda x: head((y := conv(x, padding=((1, 1), (1, 2)))) + y.swapaxes(1, 2)),
                   "add .*different orders"),
    "repeated": (lambda x: head((y := conv(x)) + nnx.relu(y).mean((1, 2), keepdims=True)),
                 "add .*repeat no tensor"),
    "positions": (lambda x: head(conv(x) + normal(6, 5, 8)), "add .*differ by row or column"),
    "maxout": (lambda x: head(jnp.maximum(conv(x), conv(x))), r"max .*x \+ relu"),
    "channel caps": (lambda x: head(jnp.minimum(nnx.relu(conv(x)), 1 + jnp.arange(8.0))),
                     "min .*a cap for each channel"),
    "caps of negatives": (lambda x: head(conv(jnp.minimum(conv(x), 1.0), normal(1, 1, 8, 8))),
                          r"min \(.*put a ReLU before or after"),
    "channel pools": (lambda x: head(lax.reduce_window(conv(x), 0.0, lax.add, (1, 1, 1, 2),
                                                       (1, 1, 1, 1), "SAME")),
        "reduce_window_sum .*over channels"),
    "dilated pools": (lambda x: head(lax.reduce_window(conv(x), -jnp.inf, lax.max, (1, 2, 2, 1),
        (1, 1, 1, 1), "VALID", window_dilation=(1, 2, 1, 1))),
                      "a dilated pool"),
    "sorted": (lambda x: jnp.sort(head(conv(x))), "sort .*ranked"),
    "indices": (lambda x: jnp.asarray(HEAD)[conv(x).astype(int)[:, 0, 0, 0]],
        "convert_element_type .*become int"),
    "half precision": (lambda x: head(conv(x.astype(jnp.bfloat16), KERNEL.astype(jnp.bfloat16))),
                       "values become bfloat16"),
    "dropout": (lambda x: head(nnx.Dropout(0.5, rngs=nnx.Rngs(0))(conv(x))),
        "random_.*turn dropout"),
    "loops": (lambda x: head(lax.while_loop(lambda y: y.sum() < 9, lambda y: y + 1, conv(x))),
        "while .*loop"),
    "recurrence": (lambda x: lax.scan(lambda c, row: (c + row, None), jnp.zeros(4), x[0, :, 0])[0][None],
                   "scan .*recurrent"),
    "complex": (lambda x: jnp.fft.rfft(x[:, 0, 0]).real, "fft .*no operation here does this"),
    "maps": (lambda x: conv(x), "the output: it is an array of shape .*segmentations"),
    "constants": (lambda x: jnp.ones((1, 5)), "it does not depend on the input"),
    "no reshape": (lambda x: head(conv(x)).reshape(7, -1), "cannot be traced .*TypeError"),
    "branches": (lambda x: head(conv(x)) if x.sum() > 0 else x, "cannot be traced .*Python's `if`"),
    "two outputs": (lambda x: (head(conv(x)), x), "returns 2 arrays"),
    "one picture": (lambda x: head(conv(x))[:1].reshape(1, 5), "expected, one answer each"),
    "fixed batch": (lambda x: head(conv(x.reshape(1, 6, 5, 4))), "takes one picture but not 2"),
    "mixed pictures": (other_batch, "pictures must not depend on each other"),
}  # fmt: skip


@pytest.mark.parametrize("function, match", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_done_is_refused(function, match):
    with pytest.raises(GraphError, match=match) as found:
        imported(function)

    assert "/" not in str(found.value).split(" (")[0]  # names lines, not folders


def test_convolutions_of_more_or_other_sides_are_refused():
    with pytest.raises(GraphError, match="it has 3 sides"):
        imported(
            lambda x: conv(x[..., None], normal(1, 1, 1, 1, 2), ("NHWDC", "HWDIO", "NHWDC")).mean(
                (1, 2, 3)
            )
        )
    with pytest.raises(GraphError, match=r"an example of shape .* expected, got \(3,\)"):
        from_jax(lambda x: x, np.zeros(3))


def test_what_differs_from_the_function_is_refused(monkeypatch):
    monkeypatch.setattr(reading, "TOLERANCE", -1.0)

    with pytest.raises(GraphError, match="its operations differ from the function by"):
        imported(lambda x: head(conv(x)))
