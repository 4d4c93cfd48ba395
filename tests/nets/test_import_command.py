"""`pqjax import`: from a trained network to a model file; whatever does not fit is said in one line."""

import dataclasses
import hashlib
import json
import os
import pathlib
import re
import tomllib

import numpy as np
import onnx_models
import pytest
from installed import entry_points
from PIL import Image
from test_resnet import state_dict

from nets import ops
from nets.architecture import Draft
from nets.data import integer_input
from nets.folded import FoldedNet
from nets.importing import command
from nets.importing.imported import Imported, Pixels
from nets.importing.named import NAMED
from nets.importing.pictures import Pictures
from nets.importing.quantize import felt, quantize, rounded, save
from nets.importing.report import reported
from nets.importing.target import quantized_to
from nets.mobilenet import read_mobilenet
from nets.ops import INPUT, Architecture
from nets.ptq import Recipe
from nets.setting import Setting
from pqjax import load_model, reference
from pqjax.cli import main
from pqjax.errors import PlanError
from pqjax.planner import find_preset, plan
from pqjax.search import Limit
from pqjax.version import VERSION

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A folder on Python's path with the entry points that installing this project would give."""
    monkeypatch.syspath_prepend(entry_points(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def small():
    draft = Draft()
    at = draft.block("conv1", INPUT, 6, 3, 2, norm=False, cap=6.0)
    at = draft.block("conv2", at, 8, norm=False)
    at = draft.add(ops.GlobalAverage("average", (at,)))
    return Architecture("small", "imagenet", (8, 8, 3), 4, draft.head(at, 4), signed=False)


@pytest.fixture(scope="module")
def imported():
    rng = np.random.default_rng(0)
    architecture, weights = small(), []
    for layer in architecture.layers:
        shape = architecture.kernel(layer)
        kernel = rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[:-1]))
        weights.append(
            (kernel.astype(np.float32), rng.normal(size=shape[-1]).astype(np.float32) / 4)
        )
    pixels = Pixels((120.0, 110.0, 100.0), (60.0, 55.0, 50.0), bgr=True, shorter=10)
    return Imported(architecture, weights, pixels, tuple("abcd"), {"file": "small", "sha256": "0"})


@pytest.fixture(scope="module")
def pictures():
    pixels = np.random.default_rng(1).integers(0, 256, (24, 8, 8, 3)).astype(np.uint8)
    return Pictures(pixels, np.arange(24) % 4, "noise")


@pytest.fixture(scope="module")
def made(imported, pictures):
    widths = Setting.parse("W8A8").widths(imported.architecture)
    return quantize(imported, widths, pictures.pixels)


def test_a_quantized_network_says_nearly_what_the_float_one_says(
    imported, pictures, made, tmp_path
):
    report = reported(imported, made, pictures)
    save(tmp_path / "net.npz", made, imported, {"pictures": pictures.origin})

    assert report.agreement > 0.9 and report.noise < 0.02 and report.accuracy is not None
    assert set(report.cost) == {"pqjax", "pqjax-ot", "privquant"}
    assert set(report.hurts) == {"conv1", "conv2", "fc"} and max(report.hurts.values()) < 0.02
    assert "same class as the float network" in report.text() and "as labelled" in report.text()
    graph, weights, meta = load_model(tmp_path / "net.npz")
    x = integer_input(pictures.pixels)
    got = np.asarray(reference(graph, weights, x)) * 2.0**-graph.output.out.scale
    wanted = FoldedNet.of(imported.architecture, imported.of_integers()).logits(x)
    assert np.square(got - wanted).mean() / wanted.var() == pytest.approx(report.noise)
    assert meta["classes"] == list("abcd") and meta["shorter"] == 10
    assert meta["versions"]["pqjax"] == VERSION
    assert meta["source"]["sha256"] == "0" and meta["calibration"] == {"pictures": "noise"}
    assert json.dumps(report.tree())


def test_what_a_layers_rounding_moves_the_logits_by(made, pictures):
    kernels = {name: kernel for name, (kernel, _) in made.net.by_name.items()}
    steps = []

    same = felt(made.net, kernels, pictures.pixels)
    off = [
        felt(made.net, {"conv2": rounded(kernels["conv2"], bits)}, pictures.pixels)["conv2"]
        for bits in (2, 4, 8)
    ]
    felt(made.net, kernels, pictures.pixels, lambda *step: steps.append(step))

    assert same == {"conv1": 0.0, "conv2": 0.0, "fc": 0.0}
    assert off[0] > off[1] > off[2] > 0
    assert steps[-1] == ("probed", 3, 3)


@pytest.mark.slow
def test_widths_keep_to_a_target(imported, pictures, made):
    preset = dataclasses.replace(find_preset("privquant"), inferences=100)
    whole = Limit(1).of(plan(made.graph, preset))
    said, recipe = [], Recipe(pool=24)

    smaller = quantized_to(0.8 * whole, preset, imported, pictures.pixels, recipe, said.append)

    assert Limit(1).of(plan(smaller.graph, preset)) <= 0.8 * whole
    assert min(smaller.student.widths.weights) < 8
    assert any("activations of 8" in line for line in said)
    with pytest.raises(PlanError, match="no widths keep to|smallest feasible limit"):
        quantized_to(0.05 * whole, preset, imported, pictures.pixels, recipe, said.append)


@pytest.mark.parametrize("mean,std", [(128, 64), (0, 255)])
def test_an_onnx_model_of_grey_pictures_answers_privately_and_says_where_it_is_from(
    mean, std, installed, capsys
):
    """Of either zero: pixels less 128, and pixels as they are, which take an unsigned input."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    onnx.save(onnx_models.lenet(17), "lenet.onnx")
    rng = np.random.default_rng(2)
    (installed / "photos").mkdir()
    for i in range(12):
        pixels = rng.integers(0, 256, (60, 50)).astype(np.uint8)
        Image.fromarray(pixels).save(installed / "photos" / f"{i}.png")

    asked = (
        f"import lenet.onnx --calibrate photos --pictures 9 --mean {mean} --std {std} --shorter 26"
    )
    assert main([*asked.split(), "-o", "net.npz"]) == 0

    told, said = capsys.readouterr()
    assert "held to its own runtime" in said and "9 pictures" in said and "privquant: " in told
    graph, _, meta = load_model("net.npz")
    assert graph.input.out.signed == (mean > 0)
    assert (
        meta["source"]["sha256"]
        == hashlib.sha256(pathlib.Path("lenet.onnx").read_bytes()).hexdigest()
    )
    assert meta["shorter"] == 26 and meta["pixels"]["mean"] == [mean]
    assert meta["calibration"]["count"] == 9 and meta["calibration"]["report"]["pictures"] == 9
    assert main("verify net.npz photos/1.png photos/2.png --source lenet.onnx".split()) == 0
    told, said = capsys.readouterr()
    assert told.count("pqjax = reference; float: ") == 2 and "2 of 2 private" in said
    assert max(float(x) for x in re.findall(r"noise ([\d.]+)%", told)) < 5


@pytest.mark.slow
def test_the_command_makes_a_model_that_answers_privately(installed, capsys):
    rng = np.random.default_rng(1)
    arrays = state_dict(rng)
    np.savez(installed / "resnet32.npz", **arrays)
    for i in range(6):
        folder = installed / "photos" / ("cat" if i % 2 else "dog")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 50, 3)).astype(np.uint8)).save(
            folder / f"{i}.png"
        )

    asked = "import resnet32.npz --calibrate photos --labels folders --bits W6A6 -o net.npz"
    assert main(asked.split()) == 0

    told = capsys.readouterr().out
    assert "as labelled" in told and "pqjax serve net.npz" in told
    asked = "verify net.npz photos/cat/1.png --source resnet32.npz"
    assert main(asked.split()) == 0
    assert "pqjax = reference; float: " in capsys.readouterr().out


@pytest.mark.skipif("PQJAX_DATA" not in os.environ, reason="needs Google's weights")
def test_the_named_mobilenet_reads_our_integers_as_googles_weights_do():
    for (kernel, bias), (wanted, plain) in zip(
        NAMED["mobilenetv2"].read().of_integers(), read_mobilenet(), strict=True
    ):
        np.testing.assert_array_equal(kernel, wanted)
        np.testing.assert_array_equal(bias, plain)


STUMBLES = {
    "no such file": ("nothing.pth", "no state dict at nothing.pth"),
    "a file that is none": ("garbage.pth", "garbage.pth is not a readable state dict"),
    "a state dict of nobody known": ("other.npz", "known here .*ResNet50.*as ONNX"),
    "bits that are none": ("net.npz --bits 8", "bits like W8A8"),
    "bits out of range": ("net.npz --bits W9A8", "2..8 bits expected"),
    "a target that is none": ("net.npz --target much", "cannot read the limit 'much'"),
    "a protocol that is not there": ("net.npz --protocol spdz", "unknown protocol 'spdz'"),
    "no pictures": ("net.npz --calibrate empty", "no pictures in empty"),
    "labels of an array": ("net.npz --calibrate x.npy --labels folders", "labels go with a folder"),
    "pictures of another size": ("net.npz --calibrate small.npy", r"pictures \(n, 32, 32, 3\)"),
    "class names that are too few": ("net.npz --classes two.json", "names 2 classes, .* tells 10"),
    "a mean of two channels": ("net.npz --mean 1,2", "--mean: 3 numbers expected"),
    "a deviation of nothing": ("net.npz --std 0", "--std: .*above 0"),
}


@pytest.mark.parametrize("case", STUMBLES)
def test_what_does_not_fit_is_said_in_one_line(case, installed, capsys):
    words, message = STUMBLES[case]
    (installed / "garbage.pth").write_bytes(b"garbage")
    arrays = {"conv.weight": np.zeros((2, 3, 3, 3), np.float32)}
    np.savez(installed / "other.npz", **arrays)  # pyright: ignore[reportArgumentType]
    np.savez(installed / "net.npz", **state_dict(np.random.default_rng(1)))
    np.save(installed / "small.npy", np.zeros((2, 8, 8, 3), np.uint8))
    (installed / "empty").mkdir()
    (installed / "two.json").write_text('["a", "b"]')

    assert main(["import", *words.split(), "-o", "out.npz"]) == 1

    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("pqjax: ") and not (installed / "out.npz").exists()
    assert re.search(message, said), said


def test_the_wheel_has_what_the_command_needs():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    entry = project["project"]["entry-points"]["pqjax.commands"]["import"]

    assert entry == f"{command.__name__}:{command.add.__name__}"
    assert "nets*" in project["tool"]["setuptools"]["packages"]["find"]["include"]
    for name in project["tool"]["setuptools"]["package-data"]["nets"]:
        assert (ROOT / "nets" / name).is_file()
