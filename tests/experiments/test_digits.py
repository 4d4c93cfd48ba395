"""The example of a user's own flax model, start to end."""

import numpy as np
import pytest

from experiments import digits
from nets.data import integer_input
from pqjax import load_model, plan, reference, run_local


def test_the_architecture_computes_what_the_flax_model_does():
    from flax import nnx

    from nets.folded import FoldedNet

    model = digits.Digits(nnx.Rngs(3))
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)
    x = integer_input(images)

    found = FoldedNet.of(*digits.imported(model)).logits(x)

    np.testing.assert_allclose(found, model(digits.real_input(x)), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_the_road_ends_at_a_network_that_two_parties_run(tmp_path, capsys):
    file = tmp_path / "digits.npz"

    assert digits.main(["--out", str(file)]) == 0

    said = dict(line.split(" ", 1) for line in capsys.readouterr().out.splitlines())
    assert float(said["float"]) > 0.9 and float(said["quantized"].split(",")[0]) > 0.9
    graph, weights, _ = load_model(file)
    made = plan(graph, "privquant")
    assert made.cost().bits <= 6.5 * 8e6
    _, test = digits.load_digits()
    x = integer_input(test.images[:1])[0].astype(np.int64)
    got = run_local(made, weights, x)
    np.testing.assert_array_equal(got.output, reference(graph, weights, x[None])[0])
    assert made.differences(got.trace, rank=1) == []


def test_a_limit_that_cannot_be_kept_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        digits, "trained", lambda train, steps, seed: digits.Digits(digits.nnx.Rngs(0))
    )
    monkeypatch.setattr(digits, "Sampling", lambda **given: digits_sampling)

    assert digits.main(["--out", str(tmp_path / "x.npz"), "--megabytes", "1"]) == 1

    assert "smallest feasible limit" in capsys.readouterr().err.splitlines()[-1]


digits_sampling = digits.Sampling(tolerance=10.0, most=8, batch=8)
