"""Residual architectures: quantized training arithmetic is the exported graph's, bit for bit."""

import math
import os
import pathlib

import jax
import numpy as np
import pytest
from slow_nets import logits as float_forward
from students import exported, floated, quantized

from nets import ops
from nets.architecture import (
    ARCHITECTURES,
    MINIONN,
    RESNET18,
    RESNET18_IMAGENET,
    RESNET32,
    RESNET32_CIFAR10,
    RESNET50,
    cifar_resnet,
    imagenet_resnet,
)
from nets.data import integer_input, load_cifar
from nets.export import export, overflow_rates
from nets.fold import equalize, fold_batch_norm
from nets.ops import Conv, Pad
from nets.pretrain import FloatRecipe, float_task, warm_started
from nets.public import import_public, read_state_dict
from nets.quantized import Widths
from nets.steps import Average, Fit, steps
from nets.untrained import UNTRAINED, kept_untrained
from pqjax.errors import CheckpointError
from pqjax.graph import Requantize, load_model, reference

TINY = cifar_resnet("tiny", "cifar100", 7, blocks=1, stages=(8, 16, 24))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def floating(images):
    return floated(TINY, images)


@pytest.mark.parametrize("text", ["W4A6", "W3A4R7", "W3A6R6"])
def test_the_fake_quantized_network_is_the_integer_reference(floating, images, text):
    student = quantized(floating, images, text)

    *_, answers = exported(student, integer_input(images))

    assert len(np.unique(answers)) > 10  # no dead network


def test_residuals_keep_more_bits_than_what_convolutions_read(floating, images):
    graph, weights = export(quantized(floating, images, "W3A6R8"))

    assert graph["res1"].out.bits == 8 and graph["act1"].out.bits == 6
    cut = graph["act1"]
    assert isinstance(cut, Requantize) and cut.rounding == "floor" and cut.out.nonnegative
    assert graph["s2b1.short"].kind == "Pad" and graph["s2b1.add2"].kind == "Add"
    assert graph["s2b1.align2"].out == graph["s2b1.conv2"].out
    assert max(overflow_rates(graph, weights, images).values()) < 0.5


def test_resnet32_is_what_the_papers_describe():
    convs = [layer for layer in RESNET32.layers if isinstance(layer, Conv)]

    assert len(convs) == 31 and len(RESNET32.layers) == 32
    assert sum(isinstance(op, Pad) for op in RESNET32.ops) == 2
    products = {
        layer.name: int(np.prod(RESNET32.kernel(layer)) * np.prod(RESNET32.shapes[layer.name][:-1]))
        for layer in RESNET32.layers
    }
    assert round(sum(products.values()) / 1e9, 3) == 0.069  # PrivQuant, table 8
    assert residuals(MINIONN) == [] and len(residuals(RESNET32)) == 15
    assert ARCHITECTURES["resnet32"] is RESNET32


def residuals(architecture):
    fits = [step for step in steps(architecture) if isinstance(step, Fit)]
    return [fit.layer for fit in fits if fit.role == "residual"]


def test_an_accumulator_coarser_than_the_residual_is_raised_to_its_scale(floating, images):
    student = quantized(floating, images, "W2A2R16")

    graph, _, _ = exported(student, integer_input(images))

    raised = [node for node in graph if node.name.endswith(".finer")]
    assert raised and all(graph.source(node).scale < node.out.scale for node in raised)
    assert all(graph[node.sources[0]].kind == "Conv" for node in raised)


def test_wrapping_would_lose_the_sign_that_formats_promise(floating, images):
    with pytest.raises(ValueError, match="tiny's activations.*saturate"):
        quantized(floating, images, "W3A6", "wrap")


@pytest.mark.parametrize("text", ["W3A6R4", "W3,4A6", "W3A6R99"])
def test_widths_that_do_not_fit_are_refused(text):
    with pytest.raises(ValueError, match="got"):
        Widths.parse(text, RESNET32)


def test_folding_and_equalizing_a_residual_network_changes_rounding_only(floating, images):
    x = integer_input(images)
    folded = fold_batch_norm(floating)
    outs = [float_forward(TINY, f, x) for f in (folded, equalize(folded, TINY))]

    np.testing.assert_allclose(outs[0], outs[1], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(outs[0], np.asarray(floating(x)), rtol=0.1, atol=0.1)  # bf16


def state_dict(rng, classes=10):
    """A state dict of the public ResNet32's names and shapes."""
    found = {"linear.weight": rng.normal(size=(classes, 64)), "linear.bias": np.zeros(classes)}
    for layer in RESNET32.layers[:-1]:
        place = layer.name
        if place.startswith("s"):
            stage, block, conv = place[1], int(place[3]) - 1, place[5:]
            place = f"layer{stage}.{block}.{conv}"
        _, _, c, k = RESNET32.kernel(layer)
        found[f"{place}.weight"] = rng.normal(size=(k, c, 3, 3)) / np.sqrt(9 * c)
        norm = place.replace("conv", "bn")
        found[f"{norm}.weight"], found[f"{norm}.bias"] = rng.uniform(0.5, 1, k), rng.normal(size=k)
        found[f"{norm}.running_mean"] = rng.normal(size=k)
        found[f"{norm}.running_var"] = rng.uniform(0.5, 1, k)
    return {name: value.astype(np.float32) for name, value in found.items()}


def test_a_public_state_dict_starts_a_network(tmp_path):
    public = state_dict(np.random.default_rng(1))
    np.savez(tmp_path / "public.npz", **public)
    fresh, _, logits = float_task(RESNET32_CIFAR10, FloatRecipe(), 10, 0)

    state = {**fresh, **import_public(RESNET32_CIFAR10, fresh, tmp_path / "public.npz")}

    # A constant image: away from the edges both normalisations are the same function.
    x = np.full((1, 32, 32, 3), 77, np.uint8)
    real = (x / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    first = np.einsum("c,kcij->k", real[0, 0, 0], public["conv1.weight"])
    gain = public["bn1.weight"] / np.sqrt(public["bn1.running_var"] + 1e-5)
    wanted = (first - public["bn1.running_mean"]) * gain + public["bn1.bias"]
    block = state["params"]["blocks"][0]
    ours = np.einsum("c,ijck->k", (77 - 128) / 256 * np.ones(3), block["kernel"])
    norm = state["stats"]["blocks"][0]["norm"]
    ours = (ours - norm["mean"]) / np.sqrt(norm["var"] + 1e-5) * block["norm"]["scale"]
    np.testing.assert_allclose(ours + block["norm"]["bias"], wanted, rtol=1e-3, atol=1e-3)
    jax.tree.map(lambda a, b: np.testing.assert_equal(a.shape, b.shape), state, fresh)
    np.testing.assert_array_equal(state["params"]["kernel"], public["linear.weight"].T)
    assert logits(state, integer_input(x)).shape == (1, 10)


def test_a_public_state_dict_that_lacks_a_tensor_is_refused(tmp_path):
    public = state_dict(np.random.default_rng(1))
    del public["layer2.3.conv1.weight"]
    np.savez(tmp_path / "public.npz", **public)
    fresh, _, _ = float_task(RESNET32_CIFAR10, FloatRecipe(), 10, 0)

    with pytest.raises(CheckpointError, match="layer2.3.conv1.weight.*nothing"):
        warm_started(RESNET32_CIFAR10, fresh, tmp_path / "public.npz")


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_resnet50s_state_dict_gives_the_network_it_describes(suffix, tmp_path):
    small = imagenet_resnet("small", side=64, classes=5, blocks=(2, 1, 1, 1), width=8)
    public = bottleneck_dict(np.random.default_rng(2), small)
    path = tmp_path / f"public.{suffix}"
    if suffix == "npz":
        np.savez(path, **public)
    else:
        pytest.importorskip("safetensors.numpy").save_file(public, path)
    fresh, _, logits = float_task(small, FloatRecipe(), 10, 0)

    state = {**fresh, **import_public(small, fresh, path)}

    # Gray edges: with the border at 128 the two normalisations' zero paddings are what differs.
    pixels = np.random.default_rng(3).integers(0, 256, (2, 64, 64, 3)).astype(np.uint8)
    wanted = bottleneck_forward(public, (pixels - 128.0) / 256, (2, 1, 1, 1))
    got = logits(state, integer_input(pixels))
    np.testing.assert_allclose(got, wanted, rtol=0.1, atol=0.05 * np.abs(wanted).max())  # bf16
    assert np.corrcoef(np.ravel(got), np.ravel(wanted))[0, 1] > 0.999


def bottleneck_dict(rng, architecture):
    """A torchvision-like state dict with random tensors."""
    found = {}
    for layer in architecture.layers[:-1]:
        name = layer.name
        conv, bn = name, name.replace("conv", "bn")
        if "." in name:
            prefix = f"layer{name[1]}.{int(name[3]) - 1}."
            part = name[5:]
            down = part == "down"
            conv = prefix + ("downsample.0" if down else part)
            bn = prefix + ("downsample.1" if down else part.replace("conv", "bn"))
        n, _, c, k = architecture.kernel(layer)
        found[f"{conv}.weight"] = rng.normal(size=(k, c, n, n)) / np.sqrt(n * n * c)
        found[f"{bn}.weight"], found[f"{bn}.bias"] = rng.uniform(0.5, 1, k), rng.normal(size=k) / 4
        found[f"{bn}.running_mean"] = rng.normal(size=k) / 4
        found[f"{bn}.running_var"] = rng.uniform(0.5, 1, k)
        found[f"{bn}.num_batches_tracked"] = np.array(7.0)
    fc = architecture.layers[-1]
    found["fc.weight"] = rng.normal(size=architecture.kernel(fc)[::-1])
    found["fc.bias"] = rng.normal(size=fc.channels)
    return {name: value.astype(np.float32) for name, value in found.items()}


def bottleneck_forward(tensors, x, blocks):
    """ResNet50's forward pass in NCHW float32, written from the papers; x as our networks take it.

    The first convolution and norm are evaluated on the normalised input's interior by moving the
    normalisation into them, as any deployment with this input would.
    """
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    x = np.asarray(x, np.float32).transpose(0, 3, 1, 2)

    def conv(x, name, stride, pad):
        return np.asarray(jax.lax.conv_general_dilated(
            x, tensors[f"{name}.weight"], (stride, stride), ((pad, pad), (pad, pad)),
            dimension_numbers=("NCHW", "OIHW", "NCHW"), precision=jax.lax.Precision.HIGHEST,
        ))  # fmt: skip

    def norm(x, name, shift=0.0):
        gain = tensors[f"{name}.weight"] / np.sqrt(tensors[f"{name}.running_var"] + 1e-5)
        offset = tensors[f"{name}.bias"] - (tensors[f"{name}.running_mean"] - shift) * gain
        return x * gain[:, None, None] + offset[:, None, None]

    scaled = x * (256 / (255 * std))[:, None, None].astype(np.float32)
    constant = np.einsum("kchw,c->k", tensors["conv1.weight"], (128 / 255 - mean) / std)
    x = np.maximum(norm(conv(scaled, "conv1", 2, 3), "bn1", constant), 0)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    half = x.shape[2] // 2
    x = np.max([padded[:, :, i : i + 2 * half : 2, j : j + 2 * half : 2]
                for i in range(3) for j in range(3)], axis=0)  # fmt: skip
    for stage, count in enumerate(blocks, 1):
        for block in range(count):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and not block else 1
            y = np.maximum(norm(conv(x, f"{name}.conv1", 1, 0), f"{name}.bn1"), 0)
            y = np.maximum(norm(conv(y, f"{name}.conv2", stride, 1), f"{name}.bn2"), 0)
            y = norm(conv(y, f"{name}.conv3", 1, 0), f"{name}.bn3")
            if not block:
                x = norm(conv(x, f"{name}.downsample.0", stride, 0), f"{name}.downsample.1")
            x = np.maximum(x + y, 0)
    return x.mean((2, 3)) @ tensors["fc.weight"].T + tensors["fc.bias"]


def test_tensors_that_are_left_over_or_of_another_shape_are_named(tmp_path):
    small = imagenet_resnet("small", side=64, classes=5, blocks=(1, 1, 1, 1), width=8)
    fresh, _, _ = float_task(small, FloatRecipe(), 10, 0)
    public = bottleneck_dict(np.random.default_rng(2), small)
    for name, bad in (("layer9.weight", np.zeros(3)), ("fc.bias", np.zeros(6))):
        np.savez(tmp_path / "bad.npz", **{**public, name: bad})
        with pytest.raises(CheckpointError, match=name):
            import_public(small, fresh, tmp_path / "bad.npz")


@pytest.mark.parametrize("name", ["none.npz", "broken.npz", "broken.safetensors", "broken.pth"])
def test_unreadable_state_dicts_are_one_error(name, tmp_path):
    if not name.startswith("none"):
        (tmp_path / name).write_bytes(b"garbage")

    with pytest.raises(CheckpointError, match=name):
        read_state_dict(tmp_path / name)


def test_resnet50_has_the_shape_the_papers_give():
    convs = [layer for layer in RESNET50.layers if isinstance(layer, Conv)]

    assert sum("down" not in layer.name for layer in convs) == 49 and len(convs) == 53
    parameters = sum(int(np.prod(RESNET50.kernel(layer))) for layer in RESNET50.layers)
    assert round(parameters / 1e6, 1) == 25.5
    average = next(step for step in steps(RESNET50) if isinstance(step, Average))
    assert average.window == (7, 7)
    assert abs(average.multiplier / 2**average.shift * 49 - 1) < 0.01


def test_resnet18_has_the_shape_the_papers_give():
    *convs, _ = RESNET18.layers
    added = [op.sources for op in RESNET18.ops if isinstance(op, ops.Add)]
    kernels = {layer.name: math.prod(RESNET18.kernel(layer)) for layer in convs}

    assert len(added) == 8 and len(convs) == 20
    assert round((sum(kernels.values()) + 512 * 100) / 1e6, 1) == 11.2
    products = sum(math.prod(RESNET18.shapes[name][:2]) * n for name, n in kernels.items())
    assert round(products / 1e6) == 555 and RESNET18.shapes[RESNET18.ops[-1].sources[0]] == (512,)


def test_resnet18_of_imagenet_has_the_shape_the_papers_give():
    *convs, fc = RESNET18_IMAGENET.layers
    kernels = {layer.name: math.prod(RESNET18_IMAGENET.kernel(layer)) for layer in (*convs, fc)}

    down = [layer.name for layer in convs if layer.name.endswith("down")]
    assert down == ["s2b1.down", "s3b1.down", "s4b1.down"] and len(convs) == 20
    assert round(sum(kernels.values()) / 1e6, 1) == 11.7
    places = {layer.name: math.prod(RESNET18_IMAGENET.shapes[layer.name][:2]) for layer in convs}
    products = sum(places[layer.name] * kernels[layer.name] for layer in convs)
    assert round((products + kernels[fc.name]) / 1e9, 2) == 1.81


@pytest.mark.parametrize("text", ["W4A6", "W3A4R7"])
def test_the_quantized_network_with_projections_trains_on_the_same_integers(text, images):
    tiny = cifar_resnet("tiny18", "cifar100", 6, 1, (4, 8, 12, 16), projected=True)
    student = quantized(floated(tiny, images), images, text)

    *_, answers = exported(student, integer_input(images))

    assert len(np.unique(answers)) > 2


@pytest.mark.parametrize("text", ["W4A6", "W6A6R10"])  # what is averaged keeps 8 bits in both
def test_the_quantized_bottleneck_network_trains_on_the_same_integers(text):
    tiny = imagenet_resnet("tiny50", side=96, classes=6, blocks=(1, 1, 1, 1), width=4)
    pixels = np.random.default_rng(4).integers(0, 256, (2, 96, 96, 3)).astype(np.uint8)
    student = quantized(floated(tiny, pixels), pixels, text)

    graph, *_ = exported(student, integer_input(pixels))

    assert graph["average"].out.bits == 8


def test_an_untrained_network_is_made_once_and_kept(tmp_path):
    tiny = imagenet_resnet("tiny50", side=64, classes=4, blocks=(1, 1), width=4)
    pixels = np.random.default_rng(4).integers(0, 256, (1, 64, 64, 3)).astype(np.uint8)

    path = kept_untrained(tiny, Widths.parse("W3A6", tiny), "w3a6", pixels, 7, tmp_path)
    made = path.stat().st_mtime_ns
    assert kept_untrained(tiny, Widths.parse("W3A6", tiny), "w3a6", pixels, 7, tmp_path) == path

    graph, weights, meta = load_model(path)
    assert path.stat().st_mtime_ns == made and meta["weights"] == UNTRAINED
    assert {"MaxPool", "Pad", "AvgPool", "Add"} <= {node.kind for node in graph}
    assert len(np.unique(reference(graph, weights, integer_input(pixels)))) > 2
    assert max(overflow_rates(graph, weights, pixels).values()) < 0.2


@pytest.mark.slow
@pytest.mark.skipif("PQJAX_DATA" not in os.environ, reason="needs the public weights and CIFAR-10")
def test_the_public_network_keeps_its_accuracy_through_the_import():
    public = pathlib.Path(os.environ["PQJAX_DATA"]) / "cifar10_resnet_ckpt" / "resnet32.npz"
    images, labels = load_cifar("cifar10", "test")
    fresh, _, logits = float_task(RESNET32_CIFAR10, FloatRecipe(), 10, 0)
    state = {**fresh, **import_public(RESNET32_CIFAR10, fresh, public)}

    answers = [
        np.asarray(logits(state, integer_input(images[i : i + 250]))).argmax(1)
        for i in range(0, 2000, 250)
    ]

    assert (np.concatenate(answers) == labels[:2000]).mean() > 0.91
