"""Google's 8-bit MobileNetV2 as an npz: from asymmetric integers to float kernels and biases.

The file holds every layer of `mobilenet_v2_1.0_224_quant` with its scales and zero points; a real weight
is (integer - zero point) * scale. Its input is (pixel - 128) / 128, ours (pixel - 128) / 256: the first
kernel takes the factor. Output 0 is the background, which is dropped.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Sequence

import numpy as np

from nets.architecture import MOBILENETV2
from nets.data import INPUT_SCALE_BITS, PIXEL_ZERO, data_folder
from nets.fold import Folded
from nets.ops import INPUT, Architecture, Conv, Dense, Flatten, Linear
from nets.steps import Block, Cut, blocks
from pqjax.errors import CheckpointError, DataError

FILE = "mobilenet_v2_1.0_224_qat_uint8.npz"
SHA256 = "752bfcc66d15a0d611239fea824333a43cc52c0e34306eddbeedd552e7a56af6"
ORIGIN = (
    "it is made from mobilenet_v2_1.0_224_quant.tflite of the GitHub repository "
    "google-coral/test_data, see the README beside it"
)


def read_mobilenet(path: pathlib.Path | str | None = None, digest: str | None = SHA256) -> Folded:
    """Kernels and biases of all layers in the order of `MOBILENETV2`, classes 0..999.

    Args:
      path: of the file; None for the one in the folder that PQJAX_DATA names.
      digest: its SHA-256; None for a file of one's own.

    Raises:
      CheckpointError: the file is missing, altered, or holds another network; says where to get it.
    """
    if path is None:
        try:
            path = data_folder("mobilenetv2_int8") / FILE
        except DataError as error:
            raise CheckpointError(f"no MobileNetV2 weights: {error}; {ORIGIN}") from error
    path = pathlib.Path(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"no MobileNetV2 weights at {path}; {ORIGIN}") from error
    found = hashlib.sha256(raw).hexdigest()
    if digest is not None and found != digest:
        raise CheckpointError(
            f"{path} was altered: SHA-256 {digest} expected, got {found}; {ORIGIN}"
        )
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        return _converted(MOBILENETV2, arrays, json.loads(str(arrays["graph"])))
    except CheckpointError:
        raise
    except Exception as error:  # whatever numpy, zip and JSON raise for a file of another kind
        raise CheckpointError(f"{path} is not such a network: {error}; {ORIGIN}") from error


def _converted(
    architecture: Architecture, arrays: dict[str, np.ndarray], steps: Sequence[dict]
) -> Folded:
    """Checks the file's graph against the architecture, step by step, and converts its layers."""
    sums = {step["name"]: step["src"] for step in steps if step["op"] == "add"}
    made = {"input": INPUT}  # the file's tensors in our names
    layers = iter([block for block in blocks(architecture) if block.layer])
    same = {
        b.name: b.sources[0] for b in blocks(architecture) if isinstance(b.steps[0], (Cut, Flatten))
    }
    folded = []
    for at, step in enumerate(steps):
        if step["op"] == "add":
            continue
        if step["op"] == "mean_hw":
            made[step["name"]] = "average"
            continue
        block = next(layers)
        layer = architecture.layers[len(folded)]
        _check(block, same.get(block.sources[0], block.sources[0]), step, made)
        made[step["name"]] = block.name
        following = steps[at + 1] if at + 1 < len(steps) else {}
        if block.plus is not None:
            added = {made.get(name) for name in sums.get(following.get("name", ""), [])}
            if added != {block.name, block.plus}:
                raise CheckpointError(f"{layer.name}: added to {block.plus} here, {added} there")
            made[following["name"]] = block.name
        folded.append(_layer(layer, architecture.kernel(layer), arrays, step))
    return folded


def _check(block: Block, source: str, step: dict, made: dict[str, str]) -> None:
    layer, relu6 = block.layer, block.fit is not None and block.fit.capped is not None
    assert layer is not None
    stride = layer.stride[0] if isinstance(layer, Conv) else 1
    wanted = (source, stride, relu6, layer.groups > 1)
    got = (made.get(step["src"]), step["stride"], bool(step["relu6"]), step["op"] == "dwconv")
    if wanted != got:
        raise CheckpointError(f"{layer.name}: {wanted} expected at {step['name']}, got {got}")


def _layer(
    layer: Linear, shape: tuple[int, ...], arrays: dict[str, np.ndarray], step: dict
) -> tuple[np.ndarray, np.ndarray]:
    name = step["name"]
    scale = float(arrays[f"{name}_ws"].reshape(()))
    zero = int(arrays[f"{name}_wz"].reshape(()))
    kernel = (arrays[f"{name}_w"].astype(np.float64) - zero) * scale  # (out, h, w, in)
    bias = arrays[f"{name}_b"].astype(np.float64) * (scale * step["in_scale"])
    kernel = kernel.transpose(1, 2, 3, 0)
    if layer.groups > 1:
        kernel = kernel.transpose(0, 1, 3, 2)  # (channels, h, w, 1) has them in front
        kernel = kernel.reshape(*kernel.shape[:2], 1, -1)
    if isinstance(layer, Dense):
        kernel, bias = kernel[0, 0, :, 1:], bias[1:]
    if layer.sources == (INPUT,):
        if step["in_zp"] != PIXEL_ZERO:
            raise CheckpointError(f"zero point {PIXEL_ZERO} expected at the input")
        kernel = kernel * (step["in_scale"] * 2.0**INPUT_SCALE_BITS)
    if kernel.shape != shape or bias.shape != shape[-1:]:
        raise CheckpointError(
            f"{layer.name}: kernel {shape} expected, got {kernel.shape} and bias {bias.shape}"
        )
    return kernel.astype(np.float32), bias.astype(np.float32)
