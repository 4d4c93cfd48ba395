"""A checked session's plan is the server's own, with all that a model file says to clients."""

import numpy as np
import pytest

from experiments.two_processes import checked
from pqjax.graph import Dense, Flatten, Graph, Input, TensorType, save_model


@pytest.mark.slow
def test_a_model_that_says_how_pictures_are_scaled_is_planned_alike_on_both_sides(tmp_path):
    nodes = [
        Input("x", (), TensorType((4, 6, 3), 8, 8)),
        Flatten("flat", ("x",), TensorType((72,), 8, 8)),
        Dense("fc", ("flat",), TensorType((3,), 20, 8), 4, 0),
    ]
    rng = np.random.default_rng(0)
    weights = {"fc/weight": rng.integers(-8, 8, (72, 3)), "fc/bias": rng.integers(-9, 9, 3)}
    meta = {"classes": ["a", "b", "c"], "shorter": 5}
    save_model(tmp_path / "net.npz", Graph(tuple(nodes)), weights, meta)

    made, got = checked(tmp_path / "net.npz", "privquant", rng.integers(-128, 128, (2, 4, 6, 3)))

    assert made.shorter == 5 and len(got.outputs) == 2
