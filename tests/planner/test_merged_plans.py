"""What merged hints save on the networks that there are, keys included."""

import pathlib

import pytest

from experiments import resnet50
from pqjax.graph import load_model
from pqjax.planner import find_preset, plan

CHECKPOINTS = pathlib.Path(__file__).parents[2] / "nets" / "checkpoints"
MERGED, UNMERGED = find_preset("pqjax-merged"), find_preset("pqjax")
# Of the bits of all inferences together, hints among them, at most so many in a hundred are left.
MOST = {
    ("minionn_w2a4", 1): 93, ("minionn_w2a4", 10): 99.5,
    ("resnet32_w3a6", 1): 85, ("resnet32_w3a6", 10): 98,
    ("resnet50_w234a6", 1): 90, ("resnet50_w234a6", 10): 98,
}  # fmt: skip


def total(made, inferences):
    """Bits of an installation and so many inferences, all alike."""
    each = made.cost("offline").bits + made.cost("online").bits
    return made.cost("install").bits + inferences * each


@pytest.mark.parametrize("name,inferences", [
    pytest.param(*case, marks=[pytest.mark.slow] if "50" in case[0] else []) for case in MOST
])  # fmt: skip
def test_clients_of_few_inferences_send_and_get_less(name, inferences):
    path = CHECKPOINTS / f"{name}.npz" if "50" not in name else resnet50.model_file()
    graph = load_model(path)[0]
    merged, without = (plan(graph, own, inferences=inferences) for own in (MERGED, UNMERGED))

    assert 100 * total(merged, inferences) <= MOST[name, inferences] * total(without, inferences)
    assert merged.secrets.merging and not without.secrets.merging
    assert merged.cost("install").bits < without.cost("install").bits / 1.5


def test_clients_of_many_inferences_send_no_keys():
    graph = load_model(CHECKPOINTS / "resnet32_w3a6.npz")[0]

    assert plan(graph, MERGED, inferences=1000).secrets.merging == 0
