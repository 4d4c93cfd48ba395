"""MobileNetV2: shape, imports, and its quantized form, held to implementations written apart."""

import csv
import json
import os

import numpy as np
import pytest
from flax import nnx
from slow_nets import logits as slow_forward
from students import exported

from nets import mobilenet, photographs
from nets.architecture import MOBILENETV2, mobilenet_v2
from nets.data import data_folder, integer_input
from nets.floating import FloatNet
from nets.fold import fold_batch_norm
from nets.folded import FoldedNet, streams
from nets.labels import imagenet
from nets.mobilenet import read_mobilenet
from nets.ops import INPUT, Add, Conv, Dense, GlobalAverage, Relu
from nets.pretrain import FloatRecipe, float_task
from nets.ptq import Recipe, quantized
from nets.public import import_public
from nets.quantized import Widths
from nets.setting import SETTINGS
from nets.untrained import UNTRAINED, kept_untrained
from pqjax.errors import CheckpointError, DataError
from pqjax.graph import Conv as ConvNode
from pqjax.graph import load_model, reference

STAGES = ((1, 4, 1, 1), (2, 6, 2, 2), (3, 8, 1, 1))
TINY = mobilenet_v2("tiny", side=32, classes=5, stages=STAGES, ends=(4, 12))
TINY_SAME = mobilenet_v2("tiny_same", side=32, classes=5, stages=STAGES, ends=(4, 12), same=True)


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3)).astype(np.uint8)


def random_folded(architecture, seed=0):
    """Kernels whose depthwise channels differ as trained ones do."""
    rng = np.random.default_rng(seed)
    folded = []
    for layer in architecture.layers:
        shape = architecture.kernel(layer)
        kernel = rng.normal(size=shape) * np.sqrt(3 / np.prod(shape[:-1]))
        if layer.groups > 1:
            kernel = kernel * 2.0 ** rng.uniform(-3, 3, layer.channels)
        kernel = kernel * (2 if layer.sources == (INPUT,) else 1)
        folded.append((kernel.astype(np.float32), rng.normal(size=layer.channels) / 4))
    return [(k, b.astype(np.float32)) for k, b in folded]


def test_mobilenetv2_has_the_shape_the_paper_gives():
    convs = [layer for layer in MOBILENETV2.layers if isinstance(layer, Conv)]

    parameters = sum(int(np.prod(MOBILENETV2.kernel(layer))) for layer in MOBILENETV2.layers)
    products = sum(
        int(np.prod(MOBILENETV2.kernel(layer)) * np.prod(MOBILENETV2.shapes[layer.name][:-1]))
        for layer in convs
    )

    assert len(convs) == 52 and MOBILENETV2.kernel(MOBILENETV2.layers[-1]) == (1280, 1000)
    assert round(parameters / 1e6, 1) == 3.5 and round(products / 1e6) == 299  # 300 with the FC
    assert MOBILENETV2.shapes["last"] == (7, 7, 1280)


@pytest.mark.parametrize("architecture", [TINY, TINY_SAME])
def test_the_folded_network_is_what_was_written_apart(architecture, pixels):
    folded, x = random_folded(architecture), integer_input(pixels)

    got = FoldedNet.of(architecture, folded).logits(x, batch=4)

    np.testing.assert_allclose(got, slow_forward(architecture, folded, x), rtol=1e-4, atol=1e-4)


def float_net(architecture, folded):
    """The flax network with these kernels: norms that only add the bias."""
    net = FloatNet(architecture, nnx.Rngs(0))
    for held, (kernel, bias) in zip(net.weighted, folded, strict=True):
        held.kernel[...] = kernel
        if held.norm is None:
            assert held.bias is not None
            held.bias[...] = bias
        else:
            assert held.norm.bias is not None
            held.norm.bias[...] = bias
            held.norm.var[...] = np.full_like(bias, 1 - held.norm.epsilon)
    net.eval()
    return net


@pytest.mark.slow
def test_the_flax_network_is_the_folded_one(pixels):
    folded, x = random_folded(TINY_SAME), integer_input(pixels)
    net = float_net(TINY_SAME, folded)

    wanted = FoldedNet.of(TINY_SAME, folded).logits(x)

    np.testing.assert_allclose(net(x), wanted, atol=0.05 * np.abs(wanted).max())  # bf16
    for (k, b), (kernel, bias) in zip(fold_batch_norm(net), folded, strict=True):
        np.testing.assert_allclose(k, kernel, rtol=1e-5)
        np.testing.assert_allclose(b, bias, rtol=1e-5, atol=1e-6)


def test_scaling_streams_keeps_the_function(pixels):
    x = integer_input(pixels)
    net = FoldedNet.of(TINY, random_folded(TINY))
    wanted = net.logits(x)
    rng = np.random.default_rng(1)

    for stream in streams(TINY):
        layer = next(n for n in TINY.layers if n.name in stream.writers)
        net = net.scaled(stream, np.exp2(rng.uniform(-2, 2, layer.channels)))

    np.testing.assert_allclose(net.logits(x), wanted, rtol=1e-3, atol=1e-4)
    assert any(stream.writers == {"s2b1.project", "s2b2.project"} for stream in streams(TINY))


MORE = [pytest.param(TINY, "W4A6", marks=pytest.mark.slow),
        pytest.param(TINY, "W8A8", marks=pytest.mark.slow)]  # fmt: skip


@pytest.mark.parametrize(("architecture", "text"), [(TINY_SAME, "W4A6"), (TINY, "W4A6R10"), *MORE])
def test_the_quantized_network_is_the_integer_reference(architecture, text, pixels):
    x = integer_input(pixels)
    net = FoldedNet.of(architecture, random_folded(architecture))

    student = quantized(net, Widths.parse(text, architecture), x, Recipe())

    graph, *_ = exported(student, x)

    assert any(isinstance(node, ConvNode) and node.groups > 1 for node in graph)
    signed = [n.out for n in graph if n.name.endswith(".act") and "project" in n.name]
    assert signed and all(out.signed and not out.nonnegative for out in signed)


@pytest.mark.slow
def test_eight_bits_come_close_to_the_float_network(pixels):
    x = integer_input(pixels)
    net = FoldedNet.of(TINY, random_folded(TINY))
    wanted = net.logits(x)

    student = quantized(net, Widths.parse("W8A8", TINY), x, Recipe())

    error = np.asarray(student(x)) - wanted
    assert np.square(error).mean() < 0.01 * np.square(wanted).mean()


def npz_of(architecture, folded):
    """A file as Google's was converted: asymmetric 8-bit layers and their graph, 1 class more."""
    arrays, steps, now = {}, [], {"input": "input"}
    relus = {op.sources[0]: op.cap is not None for op in architecture.ops if isinstance(op, Relu)}
    weights = iter(folded)
    for i, op in enumerate(architecture.ops):
        name, sources = f"{i:03d}", [now[source] for source in op.sources]
        if isinstance(op, Add):
            steps.append({"name": name, "op": "add", "src": sources})
        elif isinstance(op, GlobalAverage):
            steps.append({"name": name, "op": "mean_hw", "src": sources[0]})
        elif isinstance(op, Conv | Dense):
            kernel, bias = (a.astype(np.float64) for a in next(weights))
            if isinstance(op, Dense):
                kernel = np.concatenate([kernel[:, :1], kernel], 1)[None, None]
                bias = np.concatenate([bias[:1], bias])
            first = op.sources == (INPUT,)
            kernel = (kernel / 2 if first else kernel).transpose(3, 0, 1, 2)
            scale, in_scale = np.abs(kernel).max() / 100, 1 / 128 if first else 0.01
            arrays[f"{name}_w"] = (np.round(kernel / scale) + 120).astype(np.uint8)
            arrays[f"{name}_wz"], arrays[f"{name}_ws"] = np.array([120]), np.array([scale])
            arrays[f"{name}_b"] = np.round(bias / (scale * in_scale)).astype(np.int32)
            norm = op.name if isinstance(op, Dense) else architecture.readers[op.name][0].name
            stride = 1 if isinstance(op, Dense) else op.stride[0]
            steps.append({
                "name": name, "op": "dwconv" if op.groups > 1 else "conv", "src": sources[0],
                "stride": stride, "relu6": relus.get(norm, False), "in_scale": in_scale, "in_zp": 128,
            })  # fmt: skip
        else:
            name = sources[0]  # norms, ReLUs and flattening are no steps there
        now[op.name] = name
    arrays["graph"] = np.array(json.dumps(steps))
    return arrays


def test_the_npz_is_read_as_its_description_says(tmp_path, monkeypatch):
    monkeypatch.setattr(mobilenet, "MOBILENETV2", TINY_SAME)
    folded = random_folded(TINY_SAME)
    arrays = npz_of(TINY_SAME, folded)
    np.savez(tmp_path / "net.npz", **arrays)

    got = read_mobilenet(tmp_path / "net.npz", digest=None)

    for (kernel, bias), (wanted, plain) in zip(got, folded, strict=True):
        step = np.abs(wanted).max() / 100
        np.testing.assert_allclose(kernel, wanted, atol=0.51 * step)
        np.testing.assert_allclose(bias, plain, atol=step)


def test_missing_altered_and_foreign_weight_files_are_one_error(tmp_path, monkeypatch):
    monkeypatch.setattr(mobilenet, "MOBILENETV2", TINY_SAME)
    arrays = npz_of(TINY_SAME, random_folded(TINY_SAME))
    np.savez(tmp_path / "net.npz", **arrays)
    steps = json.loads(str(arrays["graph"]))
    other = [{**step, "stride": 1} if step["name"] == "000" else step for step in steps]
    np.savez(tmp_path / "other.npz", **{**arrays, "graph": np.array(json.dumps(other))})
    (tmp_path / "broken.npz").write_bytes(b"garbage")

    with pytest.raises(CheckpointError, match="no MobileNetV2 weights.*google-coral"):
        read_mobilenet(tmp_path / "none.npz")
    with pytest.raises(CheckpointError, match="was altered: SHA-256.*google-coral"):
        read_mobilenet(tmp_path / "net.npz")
    with pytest.raises(CheckpointError, match="not such a network"):
        read_mobilenet(tmp_path / "broken.npz", digest=None)
    with pytest.raises(CheckpointError, match="conv1.*expected at 000"):
        read_mobilenet(tmp_path / "other.npz", digest=None)
    monkeypatch.delenv("PQJAX_DATA", raising=False)
    with pytest.raises(CheckpointError, match="PQJAX_DATA is not set.*google-coral"):
        read_mobilenet()


def state_dict(architecture, style):
    """A torchvision-like or timm-like state dict with random tensors, and its tensors by our names."""
    rng = np.random.default_rng(2)
    found, ours = {}, {}
    block = 0
    for layer in architecture.layers[:-1]:
        n, _, c, k = architecture.kernel(layer)
        where, _, part = layer.name.partition(".")
        stage, at = (int(v) for v in where[1:].split("b")) if part else (0, 0)
        first = part == "expand" or (part == "depthwise" and stage == 1)
        block += first
        if style == "torchvision":
            place = (block - 1 + 1) if part else (0 if where == "conv1" else block + 1)
            i = ("depthwise", "project") if stage == 1 else ("expand", "depthwise", "project")
            if not part:
                conv, bn = f"features.{place}.0", f"features.{place}.1"
            elif part == "project":
                conv, bn = (f"features.{place}.conv.{i.index(part) + j}" for j in (0, 1))
            else:
                conv, bn = (f"features.{place}.conv.{i.index(part)}.{j}" for j in (0, 1))
        else:
            names = {"expand": ("conv_pw", "bn1"), "depthwise": ("conv_dw", "bn2"),
                     "project": ("conv_pwl", "bn3")}  # fmt: skip
            if stage == 1:
                names = {"depthwise": ("conv_dw", "bn1"), "project": ("conv_pw", "bn2")}
            if part:
                conv, bn = (f"blocks.{stage - 1}.{at - 1}.{p}" for p in names[part])
            else:
                conv, bn = ("conv_stem", "bn1") if where == "conv1" else ("conv_head", "bn2")
        found[f"{conv}.weight"] = rng.normal(size=(k, c, n, n)) * np.sqrt(2 / (n * n * c))
        found[f"{bn}.weight"], found[f"{bn}.bias"] = rng.uniform(0.5, 1, k), rng.normal(size=k) / 4
        found[f"{bn}.running_mean"] = rng.normal(size=k) / 4
        found[f"{bn}.running_var"] = rng.uniform(0.5, 1, k)
        found[f"{bn}.num_batches_tracked"] = np.array(7.0)
        ours[layer.name] = conv, bn
    fc, head = architecture.layers[-1], "classifier.1" if style == "torchvision" else "classifier"
    found[f"{head}.weight"] = rng.normal(size=architecture.kernel(fc)[::-1])
    found[f"{head}.bias"] = rng.normal(size=fc.channels)
    return {name: value.astype(np.float32) for name, value in found.items()}, ours, head


@pytest.mark.parametrize("style", ["torchvision", "timm"])
def test_public_state_dicts_give_the_network_they_describe(style, tmp_path):
    public, names, head = state_dict(TINY, style)
    np.savez(tmp_path / "public.npz", **public)
    fresh, _, logits = float_task(TINY, FloatRecipe(), 10, 0)
    pixels = np.full((2, 32, 32, 3), 128, np.uint8)  # both networks' padding is mid-grey here only
    pixels[:, 8:24, 8:24] = np.random.default_rng(3).integers(0, 256, (2, 16, 16, 3))
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])

    state = {**fresh, **import_public(TINY, fresh, tmp_path / "public.npz")}

    folded = []
    for layer in TINY.layers[:-1]:
        conv, bn = names[layer.name]
        gain = public[f"{bn}.weight"] / np.sqrt(public[f"{bn}.running_var"] + 1e-5)
        kernel = public[f"{conv}.weight"].transpose(2, 3, 1, 0)
        bias = public[f"{bn}.bias"] - public[f"{bn}.running_mean"] * gain
        if layer.sources == (INPUT,):
            bias = bias + gain * np.einsum("hwck,c->k", kernel, (128 / 255 - mean) / std)
            kernel = kernel * (256 / 255 / std)[:, None]
        folded.append(((kernel * gain).astype(np.float32), bias.astype(np.float32)))
    folded.append((public[f"{head}.weight"].T, public[f"{head}.bias"]))
    wanted = slow_forward(TINY, folded, integer_input(pixels))
    got = logits(state, integer_input(pixels))
    np.testing.assert_allclose(got, wanted, atol=0.05 * np.abs(wanted).max())  # bf16


def photographs_folder(tmp_path, monkeypatch, names):
    from PIL import Image

    folder = tmp_path / photographs.TEST / "images"
    folder.mkdir(parents=True)
    sums, lines = [], ["file,label"]
    import hashlib

    for label, name in enumerate(names):
        Image.new("RGB", (224, 224), (label, 0, 0)).save(folder / name)
        digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        sums.append(f"{digest}  images/{name}")
        lines.append(f"{name},{label}")
    (folder.parent / "SHA256SUMS").write_text("\n".join(sums) + "\n")
    (folder.parent / "labels.csv").write_text("\n".join(lines) + "\n")
    monkeypatch.setenv("PQJAX_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def test_photographs_are_checked_decoded_and_kept(tmp_path, monkeypatch):
    folder = photographs_folder(tmp_path, monkeypatch, ["a.png", "b.png"])

    images, labels = photographs.load_photographs(photographs.TEST)

    assert images.shape == (2, 224, 224, 3) and labels.tolist() == [0, 1]
    assert images[1, 0, 0].tolist() == [1, 0, 0]
    (folder / "a.png").unlink()  # the cache has it
    np.testing.assert_array_equal(photographs.load_photographs(photographs.TEST)[0], images)


def test_altered_photographs_and_missing_sets_are_data_errors(tmp_path, monkeypatch):
    folder = photographs_folder(tmp_path, monkeypatch, ["a.png", "b.png"])
    (folder / "b.png").write_bytes((folder / "a.png").read_bytes())

    with pytest.raises(DataError, match="b.png was altered"):
        photographs.load_photographs(photographs.TEST)
    with pytest.raises(DataError, match="no photographs imagenet_train1000.*EliSchwartz"):
        photographs.load_photographs(photographs.CALIBRATION)


@pytest.mark.skipif("PQJAX_DATA" not in os.environ, reason="needs the photographs' labels")
def test_class_names_are_those_of_the_photographs():
    with open(data_folder(photographs.CALIBRATION) / "labels.csv", newline="") as file:
        names = {int(row["label"]): row["name"] for row in csv.DictReader(file)}

    assert names == dict(enumerate(imagenet()))


@pytest.mark.slow
@pytest.mark.skipif("PQJAX_DATA" not in os.environ, reason="needs the weights and photographs")
def test_the_imported_network_knows_imagenet():
    images, labels = photographs.load_photographs(photographs.TEST)
    net = FoldedNet.of(MOBILENETV2, read_mobilenet())

    answers = net.logits(integer_input(images)).argmax(1)

    assert (answers == labels).mean() > 0.81


@pytest.mark.slow
def test_without_weights_an_untrained_network_is_made_once(pixels, tmp_path):
    widths = SETTINGS["W8A8"].widths(TINY_SAME)

    path = kept_untrained(TINY_SAME, widths, "w8a8", pixels, 2, tmp_path)

    graph, weights, meta = load_model(path)
    assert path.name == "tiny_same_w8a8_seed2.npz" and meta["weights"] == UNTRAINED
    assert (np.asarray(reference(graph, weights, integer_input(pixels))).std(0) > 0).all()
