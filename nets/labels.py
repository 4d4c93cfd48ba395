"""What the classes of the data sets are called: public, and a served network's clients read it.

    python -m nets.labels network.npz ...

writes the names into networks that were trained on CIFAR-10 or CIFAR-100 by their number of outputs.
"""

import functools
import pathlib
import sys

from pqjax.errors import DataError
from pqjax.graph import load_model, save_model

_NAMES = {
    "cifar10": "airplane automobile bird cat deer dog frog horse ship truck",
    "cifar100": """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
    butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch
    crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo
    keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain
    mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain
    plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
    skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone
    television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
""",
}
CLASSES = {data: [name.replace("_", " ") for name in text.split()] for data, text in _NAMES.items()}


@functools.cache
def imagenet() -> tuple[str, ...]:
    """ImageNet's 1,000 class names in the usual order of its labels, from the file beside this one.

    They are those that the GitHub repository EliSchwartz/imagenet-sample-images gives its pictures.
    """
    text = pathlib.Path(__file__).with_name("imagenet_classes.txt").read_text(encoding="utf-8")
    return tuple(text.split())


def main(paths: list[str] | None = None) -> int:
    """Writes names into network files; whatever else is in them stays."""
    for path in sys.argv[1:] if paths is None else paths:
        graph, weights, meta = load_model(path)
        named = [names for names in CLASSES.values() if len(names) == graph.output.out.n]
        if not named:
            known = ", ".join(f"{len(names)} ({data})" for data, names in CLASSES.items())
            raise DataError(f"{path} tells {graph.output.out.n} classes apart; known: {known}")
        save_model(path, graph, weights, meta | {"classes": named[0]})
    return 0


if __name__ == "__main__":
    sys.exit(main())
