"""`python -m nets.train float|qat`: trains a network in float, or quantized from a float checkpoint.

Run again with the same arguments it goes on where it was interrupted. It leaves in --out:
`state.npz` (to resume), `curve.json`, and the finished network (`<net>_float.npz`, or a packed
integer graph).
"""

import argparse
import dataclasses
import hashlib
import pathlib
import sys

from nets.architecture import ARCHITECTURES
from nets.data import DATA_SETS, load_cifar
from nets.labels import CLASSES
from nets.malloc import keep_freed_memory
from pqjax.errors import DataError, PqjaxError

NETS = [a.name for a in ARCHITECTURES.values() if a.data in DATA_SETS]


def main(argv: list[str] | None = None) -> int:
    """Runs the command; a typed error becomes one line and exit code 1."""
    args = parser().parse_args(argv)
    try:
        result = train_float(args) if args.mode == "float" else train_qat(args)
    except (PqjaxError, ValueError) as error:
        print(f"nets.train: {error}", file=sys.stderr)
        return 1
    print(result)
    return 0


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    built = argparse.ArgumentParser(prog="python -m nets.train", description=__doc__)
    built.add_argument("mode", choices=["float", "qat"])
    built.add_argument("--net", choices=NETS, default="minionn")
    built.add_argument(
        "--bits",
        default="W4A4",
        help="W4A4, W3A6R8 (residuals of 8 bits), 4,2,2,2,2,2,2,4/A4, or @FILE that holds such a line, "
        "as `pqjax search --widths` writes it (qat)",
    )
    built.add_argument("--rule", choices=["saturate", "wrap"], default="saturate")
    built.add_argument(
        "--accumulator", metavar="BITS",
        help="most bits of layers' sums, which training keeps to: 12, or 14,12,...,0 by layer, where 0 "
        "is free; a pool of 2^k values adds k (qat)",
    )  # fmt: skip
    built.add_argument("--narrowing", type=float, help="weight of wider sums in the loss (qat)")
    built.add_argument("--learn-scales", action="store_true", help="train the log2 scales too")
    built.add_argument(
        "--float", type=pathlib.Path, dest="teacher", help="float checkpoint to start from (qat)"
    )
    built.add_argument(
        "--start", type=pathlib.Path,
        help="float checkpoint to go on from, or the public CIFAR-10 ResNet32 (float)",
    )  # fmt: skip
    built.add_argument("--from", type=pathlib.Path, dest="before",
                       help="state.npz of a former quantized run to start from (qat)")  # fmt: skip
    built.add_argument("--warmup", type=float, help="share of the steps in which the rate rises")
    built.add_argument(
        "--first-rate", type=float, help="the first step's rate, of the peak (float)"
    )
    built.add_argument("--epochs", type=int, default=14)
    built.add_argument("--part", type=float, default=1.0, help="of the images that an epoch sees")
    built.add_argument("--batch", type=int, default=128)
    built.add_argument("--seed", type=int, default=1)
    built.add_argument("--rate", type=float, help="peak learning rate")
    built.add_argument("--decay", type=float, help="weight decay (float)")
    built.add_argument("--smoothing", type=float, help="of labels (float)")
    built.add_argument("--distill", type=float, help="weight of the teacher's answer (qat)")
    built.add_argument("--erase", type=float, default=0.25, help="chance of random erasing")
    built.add_argument(
        "--cutmix", type=float, default=0.0, help="chance of a part of another image"
    )
    built.add_argument("--mixup", type=float, default=0.0, help="chance of a mean of two images")
    built.add_argument(
        "--evaluate-every", type=int, default=4,
        help="epochs; 0 for never: training then needs no test images",
    )  # fmt: skip
    built.add_argument("--brief", action="store_true",
                       help="of the final network only top-1 of the integer graph (qat)")  # fmt: skip
    built.add_argument("--out", type=pathlib.Path, required=True, help="folder of this run")
    return built


def _setting(args: argparse.Namespace):
    """The network, its training set and the schedule; jax is imported late so that --help is quick."""
    from nets.augment import Augmentation
    from nets.loop import Images, Schedule

    architecture = ARCHITECTURES[args.net]
    schedule = Schedule(
        epochs=args.epochs, batch=args.batch, seed=args.seed, evaluate_every=args.evaluate_every,
        part=args.part, augmentation=Augmentation(args.erase, args.cutmix, args.mixup),
    )  # fmt: skip
    train = Images(*load_cifar(architecture.data, "train"))
    args.out.mkdir(parents=True, exist_ok=True)
    return architecture, train, schedule, schedule.steps(len(train.labels)) * schedule.epochs


def train_float(args: argparse.Namespace) -> dict:
    """Trains in float and writes `<net>_float.npz`; returns top-1 over the test set if it is read."""
    from nets.loop import Images, accuracy, fit
    from nets.pretrain import FloatRecipe, float_task, load_float, save_float, warm_started

    architecture, train, schedule, steps = _setting(args)
    test = Images(*load_cifar(architecture.data, "test")) if args.evaluate_every else None
    given = {
        "peak_rate": args.rate, "warmup": args.warmup, "first": args.first_rate,
        "decay": args.decay, "smoothing": args.smoothing,
    }  # fmt: skip
    recipe = FloatRecipe(**{name: value for name, value in given.items() if value is not None})
    state, step, logits = float_task(architecture, recipe, steps, schedule.seed)
    config = {
        "net": args.net, "mode": "float", "recipe": dataclasses.asdict(recipe), "device": _device(),
    }  # fmt: skip
    if args.start is not None:
        state = warm_started(architecture, state, args.start)
        config["start"] = args.start.name
    state, curve = fit(state, step, logits, train, test, schedule, args.out, config)
    file = args.out / f"{args.net}_float.npz"
    save_float(file, state, {"config": curve["config"]})
    result: dict = {"network": str(file)}
    if test is not None:  # of what was written, float16 kernels included
        result["top1"] = accuracy(None, jitted(load_float(file, architecture)[0]), test)
    return result


def _device() -> str:
    """The kind of device that trains: another one repeats a run in kind, not bit for bit."""
    import jax

    return jax.devices()[0].device_kind


def read_bits(text: str) -> str:
    """Widths as given, or from the file behind an @."""
    if not text.startswith("@"):
        return text
    try:
        return pathlib.Path(text[1:]).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the widths in {text[1:]}: {error}") from error


def file_part(bits: str) -> str:
    """Widths as part of a file's name; long lists by what identifies them."""
    short = bits.lower().replace(",", "").replace("/", "")
    return short if len(short) <= 64 else hashlib.sha256(bits.encode()).hexdigest()[:12]


def train_qat(args: argparse.Namespace) -> dict:
    """Trains quantized and writes the packed graph; top-1 is the integer reference's."""
    from nets.accumulator import narrow, parse_bits
    from nets.data import integer_input
    from nets.export import export, overflow_rates, top1
    from nets.loop import Images, accuracy, fit
    from nets.pretrain import load_float
    from nets.qat import QatRecipe, continued, qat_task, student_of
    from nets.quantized import Widths
    from pqjax.graph import save_model

    if args.teacher is None:
        raise ValueError("qat needs --float, a float checkpoint")
    bits = read_bits(args.bits)
    architecture, train, schedule, steps = _setting(args)
    test = Images(*load_cifar(architecture.data, "test")) if args.evaluate_every else None
    widths = Widths.parse(bits, architecture, args.rule, args.learn_scales)
    teacher, _ = load_float(args.teacher, architecture)
    asked = parse_bits(args.accumulator, architecture) if args.accumulator else ()
    given = {
        "peak_rate": args.rate, "distill": args.distill, "warmup": args.warmup,
        "accumulators": asked, "narrowing": args.narrowing,
    }  # fmt: skip
    recipe = QatRecipe(**{name: value for name, value in given.items() if value is not None})
    calibration = integer_input(train.images[:256])
    state, step, logits = qat_task(teacher, widths, recipe, steps, calibration)
    config = {
        "net": args.net, "mode": "qat", "bits": bits, "widths": dataclasses.asdict(widths),
        "recipe": dataclasses.asdict(recipe), "teacher": args.teacher.name,
        "device": _device(),
    }  # fmt: skip
    if args.before is not None:
        state = continued(state, args.before)
        config["from"] = args.before.parent.name
    state, curve = fit(state, step, logits, train, test, schedule, args.out, config)
    student = student_of(architecture, widths, state["params"])
    result: dict = {"lowered_weights": narrow(student, asked)} if asked else {}
    graph, weights = export(student)
    result["accumulator_bits"] = {
        node.name: node.out.bits for node in graph if node.kind in ("Conv", "Dense")
    }
    if test is not None:
        result["top1"] = top1(graph, weights, test.images, test.labels)
        result["overflow"] = overflow_rates(graph, weights, test.images[:1000])
    if test is not None and not args.brief:
        result["top1_fake_quantized"] = accuracy(None, jitted(student), test)
        result["top1_float"] = accuracy(None, jitted(teacher), test)
    suffix = "" if args.rule == "saturate" else f"_{args.rule}"
    file = args.out / f"{args.net}_{file_part(bits)}{suffix}.npz"
    meta = {"config": curve["config"], "classes": CLASSES[architecture.data], **result}
    save_model(file, graph, weights, meta)
    return {"network": str(file), **result}


def jitted(net):
    """A network as the `logits` function of `loop.accuracy`."""
    from flax import nnx

    run = nnx.jit(lambda net, x: net(x))
    return lambda _, x: run(net, x)


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
