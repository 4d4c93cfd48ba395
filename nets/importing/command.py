"""`pqjax import`: from a trained network and pictures to a model file that `pqjax serve` takes."""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import typing
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from pqjax.cli.console import Bar, say
from pqjax.cli.options import Commands, command, output_file, positive
from pqjax.errors import DataError, InputError

if typing.TYPE_CHECKING:
    from nets.importing.imported import Imported
    from nets.importing.pictures import Pictures


_COMPARED = 2  # pictures on which an imported network is held to its source's own runtime


def add(commands: Commands) -> None:
    """Adds the command."""
    made = command(
        commands, "import", _import, "quantize a trained network, without training",
        "import model.onnx --calibrate photos --bits W8A8 -o model.npz",
        "import resnet50.pth --calibrate photos --target 0.2GB --labels labels.csv -o model.npz",
        "import efficientnet-lite0 -o efficientnet.npz",
    )  # fmt: skip
    what = (
        "ONNX or Keras file, state dict of a known architecture, or the name of a network at hand"
    )
    made.add_argument("model", help=what)
    pictures = "folder of pictures like those it will be asked about, or .npy of integers 0..255; "
    pictures += "without it parts of scikit-image's photographs"
    made.add_argument("--calibrate", metavar="FOLDER", help=pictures)
    made.add_argument("--pictures", type=positive(int), default=256, metavar="N", help="at most")
    bits = "of weights and of activations; first and last layer have 8 (default: W8A8)"
    widths = made.add_mutually_exclusive_group()
    widths.add_argument("--bits", metavar="WIDTHS", help=bits)
    target = "the widths of least noise that keep to so many bytes an inference, e.g. 0.2GB"
    widths.add_argument("--target", metavar="BYTES", help=target)
    protocol = "preset that --target is of"
    made.add_argument("--protocol", default="pqjax", metavar="PRESET", help=protocol)
    labels = "CSV with columns file and label, or `folders`: each picture's folder is its class"
    made.add_argument("--labels", metavar="FILE", help=labels)
    classes = "class names: a JSON list, or a network file (.npz) that has them"
    made.add_argument("--classes", metavar="FILE", help=classes)
    for name in ("mean", "std"):
        text = f"{name} of pixels 0..255 that inputs are normalized by, of each channel or all"
        made.add_argument(f"--{name}", type=_numbers, metavar="N[,N,N]", help=text)
    bgr = "the network reads blue first"
    made.add_argument("--bgr", action=argparse.BooleanOptionalAction, default=None, help=bgr)
    shorter = "pixels that a picture's shorter side is scaled to before its centre is cut"
    made.add_argument("--shorter", type=positive(int), metavar="N", help=shorter)
    shape = "of an ONNX network's input, where it is open or to be another, e.g. 1,3,224,224"
    made.add_argument("--input-shape", type=_sides, metavar="N,N,N,N", help=shape)
    left_out = "kind of ONNX nodes to leave out, at what it costs; may be given again"
    made.add_argument("--replace", action="append", default=[], metavar="LRN", help=left_out)
    out = "network file to write"
    made.add_argument("-o", "--out", type=output_file, required=True, metavar="FILE", help=out)


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"numbers expected, got {text!r}") from error


def _sides(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in _numbers(text))


def _import(args: argparse.Namespace) -> int:
    try:
        return _imported(args)
    except ImportError as error:
        raise DataError(
            f"`pqjax import` needs {error.name}, which is not installed: "
            "pip install 'pqjax[nets,import]'"
        ) from error


def _imported(args: argparse.Namespace) -> int:
    from nets.importing.agreement import check_agreement
    from nets.importing.quantize import RECIPE, quantize, save
    from nets.importing.report import INFERENCES, reported
    from nets.importing.target import quantized_to
    from nets.setting import Setting
    from pqjax.planner import find_preset
    from pqjax.search import parse_bits

    setting = Setting.parse(args.bits or "W8A8")
    limit = None if args.target is None else parse_bits(args.target)
    preset = dataclasses.replace(find_preset(args.protocol), inferences=INFERENCES)
    imported = _told(read_network(args.model, args.input_shape, args.replace), args)
    say(f"pqjax: {imported.architecture.name}: {len(imported.architecture.layers)} layers")
    pictures, bar = _pictures(args, imported), Bar()
    say(f"pqjax: {len(pictures.pixels)} pictures to calibrate on, of {pictures.origin}")
    if imported.runtime is not None:
        off = check_agreement(imported, imported.pixels.real(pictures.pixels[:_COMPARED]))
        say(f"pqjax: held to its own runtime, {off}")
    recipe = dataclasses.replace(RECIPE, pool=len(pictures.pixels))
    if limit is None:
        widths = setting.widths(imported.architecture)
        made = quantize(imported, widths, pictures.pixels, recipe, bar)
    else:
        made = quantized_to(limit, preset, imported, pictures.pixels, recipe, say, bar)
    report = reported(imported, made, pictures, bar)
    about = {
        "pictures": pictures.origin, "count": len(pictures.pixels), "sha256": pictures.digest,
        "recipe": dataclasses.asdict(recipe), "report": report.tree(),
    }  # fmt: skip
    try:
        save(args.out, made, imported, about)
    except OSError as error:
        raise DataError(f"cannot write {args.out}: {error}") from error
    print(f"{report.text()}\nwrote {args.out}; next: pqjax serve {args.out}")
    return 0


def float_outputs(
    model: str, integers: Int[np.ndarray, "n h w c"], description: Mapping[str, typing.Any]
) -> Float[np.ndarray, "n classes"]:
    """What a float network says to inputs of the model file made of it: `pqjax verify --source`.

    Args:
      model: as `read_network` takes it.
      integers: inputs of the model file, pixels less its `Architecture.zero`.
      description: the model file's; says what its pixels mean.
    """
    from nets.importing.imported import Pixels

    imported = read_network(model)
    if integers.shape[1:] != imported.architecture.image:
        imported = read_network(model, (1, integers.shape[3], *integers.shape[1:3]))
    told = description.get("pixels")
    imported = imported if told is None else imported.reading(Pixels(**told))
    run = imported.runtime or imported.outputs
    x = imported.pixels.real(integers + imported.architecture.zero)
    return np.asarray(run(x), np.float64)


def read_network(
    model: str, input_shape: Sequence[int] | None = None, replace: Sequence[str] = ()
) -> Imported:
    """What a name or path is of: a network at hand, an ONNX file, or a state dict.

    Raises:
      CheckpointError, GraphError: the file is unreadable, or holds what cannot be quantized.
    """
    from nets.importing.named import NAMED
    from nets.importing.state_dict import read_known

    if model in NAMED:
        return NAMED[model].read()
    suffix = pathlib.Path(model).suffix.lower()
    if suffix == ".onnx":
        from nets.importing.onnx import read_onnx

        return read_onnx(model, input_shape=input_shape, replace=replace)
    if suffix == ".keras":
        from nets.importing.keras import from_keras

        return from_keras(model, image=None if input_shape is None else tuple(input_shape[1:]))
    return read_known(model)


def _told(imported: Imported, args: argparse.Namespace) -> Imported:
    """The network with what the options say of its inputs and answers."""
    from pqjax.cli.classes import read_names

    channels = imported.architecture.image[2]
    given: dict[str, typing.Any] = {}
    for name in ("mean", "std"):
        numbers = getattr(args, name)
        if numbers is None:
            continue
        numbers = numbers * channels if len(numbers) == 1 else numbers
        if len(numbers) != channels or (name == "std" and min(numbers) <= 0):
            raise InputError(f"--{name}: {channels} numbers expected, deviations above 0")
        given[name] = numbers
    if args.bgr is not None:
        given["bgr"] = args.bgr
    if args.shorter is not None:
        given["shorter"] = args.shorter
    names = read_names(args.classes)
    if names is not None and len(names) != imported.architecture.classes:
        raise DataError(
            f"{args.classes} names {len(names)} classes, the network tells "
            f"{imported.architecture.classes} apart"
        )
    classes = imported.classes if names is None else tuple(names)
    pixels = dataclasses.replace(imported.pixels, **given)
    return dataclasses.replace(imported.reading(pixels), classes=classes)


def _pictures(args: argparse.Namespace, imported: Imported) -> Pictures:
    from nets.importing.named import PARTS, crops
    from nets.importing.pictures import Pictures, read_pictures

    shape = imported.architecture.image
    high, wide, channels = shape
    if args.calibrate is None:
        if channels != 3:
            raise InputError("--calibrate expected: pictures of one channel, or others than RGB")
        say("pqjax: no --calibrate: pictures like those it will be asked about would serve better")
        return Pictures(crops((high, wide), args.pictures), None, PARTS)
    bar = Bar()
    return read_pictures(
        args.calibrate, shape, imported.pixels.shorter, args.pictures, args.labels, imported.classes,
        lambda done, of: bar("pictures", done, of),
    )  # fmt: skip
