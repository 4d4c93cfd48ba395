import pytest

from experiments.convolution import GIB, closing_cost, published_layer
from experiments.record import published, read, rms
from experiments.table9 import SIRNN_FIGURES, SIRNN_TEXT, differences, rows


@pytest.fixture(scope="module")
def runs():
    return rows()


def test_privquants_column_is_met_within_five_percent(runs):
    assert len(runs) == 15
    assert rms(differences(runs, "PrivQuant", None, closing=True)) <= 0.05
    assert rms(differences(runs, "PrivQuant", None, closing=False)) <= 0.06


def test_sirnns_column_is_choice_one_within_five_percent_and_not_choice_four(runs):
    for closing in (False, True):
        assert rms(differences(runs, "SiRNN", SIRNN_FIGURES, closing)) <= 0.05
        assert rms(differences(runs, "SiRNN", SIRNN_TEXT, closing)) > 0.4


def test_choice_four_is_the_cheapest_everywhere(runs):
    assert {row["cheapest"] for row in runs} == {SIRNN_TEXT}


def test_the_closing_truncation_is_a_few_percent():
    layer = published_layer(56, 64, 3)

    assert 0.02 < closing_cost(layer.shape, 2, 4).bits / GIB < 0.04


def test_the_committed_measurements_are_what_the_model_says_today(runs):
    measured = {(r["layer"], r["widths"]): r["bits"] for r in read("table9")["measured"]}

    assert {layer for layer, _ in measured} == {
        published_layer(*r["layer"]).name for r in published("table9")["rows"]
    }
    for row in runs:
        if (row["layer"], row["widths"]) in measured:
            expected = row["choice_bits"][row["cheapest"] - 1] + row["closing_bits"]
            assert measured[row["layer"], row["widths"]] == expected
