"""The parts of exp-hequant: CrypTFlow2's formula, errors of packed sums, accumulators, single layers."""

import dataclasses
import json

import numpy as np
import pytest
from networks import resnet32

from experiments import hequant, packing_errors, record
from experiments.accumulators import widths_by_strategy
from experiments.ideas import ALL, CHEETAH, SCI, VARIANTS, presets, priced
from experiments.sci_he import he_bits
from experiments.single_layer import input_for, layer_graph, run_checked
from pqjax.errors import InputError, PqjaxError
from pqjax.graph import Clamp, Conv, Graph, Input, TensorType, every_value, validate
from pqjax.graph.nodes import NO_PADDING
from pqjax.linear import LinearMap
from pqjax.planner import Plan

ALIKE = ((1, 1), (1, 1))
PICTURES = np.random.default_rng(9).integers(0, 256, (4, 32, 32, 3)).astype(np.uint8)
FRESH, BACK = 2 * 180, 2 * 60  # bits of a slot's place in a ciphertext


def conv(side, kernel, step, inputs, outputs, groups=1):
    padding = ALIKE if kernel == 3 else ((0, 0), (0, 0))
    return LinearMap(
        (side, side), (kernel, kernel), (step, step), padding, (1, 1), groups, inputs, outputs
    )


@pytest.mark.parametrize(("m", "up", "down"), [
    (conv(14, 3, 1, 256, 256), 8 * 8192, 8 * 8192),  # 16x16: 16 channels a half
    (conv(7, 1, 1, 512, 2048), 4 * 8192, 16 * 8192),  # 7x7: 64 a half
    (conv(56, 3, 1, 64, 128), 32 * 8192, 64 * 8192),  # 58x58: one a half
    # Step 2 of 32x32: 33x33 pixels read, in phases of 17x17, 17x16, 16x17 and 16x16.
    (conv(32, 3, 2, 64, 128), (3 * 4 + 2) * 8192, (3 * 8 + 4) * 8192),
    (conv(56, 1, 2, 64, 128), 8 * 8192, 16 * 8192),  # one phase, of 28x28
    (conv(112, 3, 1, 4, 2), 2 * 2 * 16384, 1 * 2 * 16384),  # 114x114 in a half of 2^14
    (LinearMap.pointwise((1, 1), 512, 1000), 8192, 8192),
])  # fmt: skip
def test_what_cryptflow2_sends_for_a_layer(m, up, down):
    assert he_bits(m) == (down * BACK, up * FRESH)


def test_what_cryptflow2s_code_does_not_do_is_refused():
    with pytest.raises(InputError, match="groups"):
        he_bits(conv(14, 3, 1, 8, 8, groups=8))
    with pytest.raises(InputError, match="half a ciphertext"):
        he_bits(conv(224, 3, 1, 3, 8))


def test_packed_sums_are_off_by_one_as_often_as_the_formula_says(monkeypatch):
    monkeypatch.setattr(packing_errors, "LAYER", conv(14, 3, 1, 32, 16))

    found = packing_errors.error_rate(2, 3, seed=5)

    assert found["largest_error"] == 1 and found["sums"] == 14 * 14 * 16
    assert found["counted"] > 0
    assert abs(found["counted"] - found["formula"]) < 5 * found["deviation"]
    assert found["formula_of_l_bits"] == pytest.approx(4 * found["formula"])


def test_the_plain_convolution_is_that_of_the_reference():
    graph, weights, x = resnet32(3, blocks=1, stages=(4, 8, 16))
    values = every_value(graph, weights, x[None])
    node = next(n for n in graph if isinstance(n, Conv) and n.stride == (1, 1))
    m = dataclasses.replace(conv(node.out.shape[0], 3, 1, *node.kernel), inputs=1, outputs=1)

    found = packing_errors.convolved(
        m, weights[f"{node.name}/weight"].astype(int), values[node.sources[0]][0].astype(int)
    )

    np.testing.assert_array_equal(found + weights[f"{node.name}/bias"], values[node.name][0])


def test_accumulators_by_three_strategies():
    graph, weights, x = resnet32(3, blocks=1, stages=(4, 8, 16))
    rng = np.random.default_rng(3)
    low, high = graph.input.out.low, graph.input.out.high
    wild = rng.choice([low, high], (2, *x.shape))

    rows = widths_by_strategy(graph, weights, np.zeros_like(wild), wild)

    worst, own, seen = (list(row["widths"].values()) for row in rows)
    assert [row["strategy"] for row in rows] == ["worst case", "by weights", "by pictures"]
    assert sum(own) < sum(worst)
    assert rows[0]["overflows"] == rows[1]["overflows"] == 0 < rows[2]["overflows"]
    assert sum(seen) < sum(own)
    assert rows[0]["linear_bits"] > rows[1]["linear_bits"] > rows[2]["linear_bits"]


def test_a_layer_alone_sends_what_was_predicted_and_computes_what_it_does_in_its_network():
    graph, weights, _ = resnet32(3, blocks=1, stages=(4, 8, 16))

    for name in ("conv1", "s2b1.conv1"):
        small, kept = layer_graph(graph, weights, name)
        assert set(kept) == {f"{name}/weight", f"{name}/bias"}
        assert small[name].out == graph[name].out
        found = run_checked(small, kept, input_for(small, 1), presets()[ALL])
        assert found["bits"] == found["predicted_bits"] and found["off"] == 0
        assert found["by_layer"][name] > 0


def test_a_layer_that_reads_less_than_its_formats_range_has_room_for_all_of_it_alone():
    x = Input("x", (), TensorType((2, 2, 1), 8, 0))
    kept = Clamp("kept", ("x",), TensorType((2, 2, 1), 4, 0, signed=False), 0, 3)
    layer = Conv("conv", ("kept",), TensorType((2, 2, 1), 4, 0), (1, 1), (1, 1), NO_PADDING, 3, 0)
    weights = {"conv/weight": np.full((1, 1, 1, 1), -2), "conv/bias": np.zeros(1, int)}
    graph = Graph((x, kept, layer))
    validate(graph, weights)

    small, kept_weights = layer_graph(graph, weights, "conv")

    assert small["conv"].out.bits == 6  # of -30, and not of -6
    validate(small, kept_weights)


def test_a_wrong_answer_or_bit_ends_a_measurement(monkeypatch):
    graph, weights, _ = resnet32(3, blocks=1, stages=(4, 8, 16))
    small, kept = layer_graph(graph, weights, "conv1")
    asked = small, kept, input_for(small, 1), presets()[ALL]

    with monkeypatch.context() as patch:
        patch.setattr("experiments.single_layer.reference", lambda *args: np.zeros(1, int))
        with pytest.raises(PqjaxError, match="differs from the integer reference"):
            run_checked(*asked)
    monkeypatch.setattr(Plan, "differences", lambda *args: ["conv1: a bit more"])
    with pytest.raises(PqjaxError, match="not as predicted: conv1: a bit more"):
        run_checked(*asked)


def test_ideas_save_one_by_one_and_together_on_a_network():
    graph, _, _ = resnet32(3, blocks=1, stages=(4, 8, 16))

    rows = {row["system"]: row["bits"] for row in priced(graph)}

    assert list(rows) == [SCI, CHEETAH, *VARIANTS]
    uniform, tiling, widths, both, *_, everything = (rows[name] for name in VARIANTS)
    assert both < min(tiling, widths) and max(tiling, widths) < uniform < rows[CHEETAH]
    assert everything <= both < rows[CHEETAH] < rows[SCI]


def test_naive_quantization_saturates_and_tiling_with_packing_goes_on():
    graph, _, _ = resnet32(3, blocks=1, stages=(4, 8, 16))

    rows = {row["bits"]: row for row in hequant.saturation(graph)}

    uniform, naive, _, everything = hequant.SATURATING
    assert rows[2][uniform] == rows[8][uniform]
    for name in (naive, everything):
        assert rows[2][name] < rows[4][name] < rows[8][name]
    assert all(rows[bits][everything] < rows[bits][naive] for bits in rows)


@pytest.mark.slow
def test_the_report_sets_what_comes_out_beside_what_is_claimed(monkeypatch, tmp_path, capsys):
    """The whole command on a small network, as quick as it goes."""
    graph, weights, _ = resnet32(3, blocks=1, stages=(4, 8, 16))
    monkeypatch.setattr(record, "LATEST", tmp_path)
    monkeypatch.setattr(hequant, "_graph", lambda name: (graph, weights))
    monkeypatch.setattr(hequant, "LAYERS", (("3x3", "ResNet32, CIFAR-100", "conv1"),))
    monkeypatch.setattr(hequant, "PACKED", ((2, 2),))
    monkeypatch.setattr(hequant, "cifar_test", lambda name: (PICTURES, None, "noise"))
    monkeypatch.setattr(packing_errors, "LAYER", conv(6, 3, 1, 8, 4))

    assert hequant.main(["--quick", "--networks", "ResNet32, CIFAR-100"]) == 0

    tree = json.loads((tmp_path / "hequant_quick.json").read_text())
    text = (tmp_path / "hequant_quick.md").read_text()
    bits = {row["system"]: row["bits"] for row in tree["networks"]}
    ratio = f"{bits[CHEETAH] / bits[ALL]:.1f}"
    (claim,) = (line for line in text.splitlines() if "against Cheetah, on average" in line
                and "communication" in line)  # fmt: skip
    assert "3.0 (summary)" in claim and f"{ratio} (one network)" in claim
    assert all(row["bits"] == row["predicted_bits"] for row in tree["runs"] if "layer" not in row)
    assert [row["system"] for row in tree["runs"]] == [hequant.NAIVE, ALL, CHEETAH, ALL]
    assert "not run" in text and (tmp_path / "hequant.svg").exists()
