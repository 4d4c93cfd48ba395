"""Hutchinson's traces against exact Hessians, and the file they are written to."""

import dataclasses
import functools
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import slow_nets

from nets.architecture import Draft
from nets.loop import Images
from nets.ops import INPUT, Architecture, GlobalAverage
from nets.quantizer import best_weight_scale
from nets.sensitivity import (
    Sampling,
    activation_errors,
    curvature,
    cut_errors,
    estimate_traces,
    logits,
    loss,
    main,
    measure,
    random_signs,
    shifted,
    start,
    weight_errors,
)
from pqjax.errors import CheckpointError
from pqjax.graph.sensitivity import read_sensitivities


def tiny():
    draft = Draft()
    one = draft.block("conv1", INPUT, 2, 3)
    two = draft.block("conv2", one, 2, 3)
    three = draft.block("conv3", two, 2, plus=one)
    short = draft.shortcut("short", three, 2, 1)
    four = draft.block("conv4", three, 4, 3, 2, plus=short, pool=2)
    return Architecture("tiny", "cifar10", (4, 4, 3), 3, draft.head(four, 3), signed=True)


def pooled():
    draft = Draft()
    pool = draft.largest("pool1", draft.block("conv1", INPUT, 2, 3), 3, 2)
    two = draft.block("conv2", pool, 2, relu=False)
    three = draft.block("conv3", pool, 2, 3, plus=two)
    average = draft.add(GlobalAverage("average", (three,)))
    return Architecture("pooled", "cifar10", (4, 4, 3), 3, draft.head(average, 3), signed=True)


TINY, POOLED = tiny(), pooled()


def folded_of(architecture, seed=0):
    rng = np.random.default_rng(seed)
    shapes = [architecture.kernel(layer) for layer in architecture.layers]
    return [
        (rng.normal(0, 0.7, s).astype(np.float32), rng.normal(0, 0.3, s[-1]).astype(np.float32))
        for s in shapes
    ]


def setting(architecture, batch=4):
    rng = np.random.default_rng(1)
    folded = folded_of(architecture)
    x = rng.normal(0, 1, (batch, *architecture.image)).astype(np.float32)
    y = rng.integers(0, architecture.classes, batch).astype(np.int32)
    biases = [jnp.asarray(b) for _, b in folded]
    return folded, functools.partial(loss, architecture, biases), jnp.asarray(x), jnp.asarray(y)


def exact_trace(loss_of, point, kind, name, x, y):
    @jax.jit
    def of_one(tensor):
        return loss_of({**point, kind: {**point[kind], name: tensor}}, x, y)

    n = point[kind][name].size
    return float(jnp.trace(jax.jit(jax.hessian(of_one))(point[kind][name]).reshape(n, n)))


@pytest.mark.parametrize("architecture", [TINY, POOLED], ids=lambda a: a.name)
def test_estimates_are_within_their_errors_of_exact_traces(architecture):
    folded, loss_of, x, y = setting(architecture)
    point = start(architecture, folded, len(y))
    sampling = Sampling(tolerance=0.05, most=60, batch=len(y))

    traces = estimate_traces(loss_of, point, itertools.repeat((x, y)), sampling)

    for kind in ("weights", "operands", "residuals"):
        for name, (mean, error, n) in traces.by_name(kind).items():
            exact = exact_trace(loss_of, point, kind, name, x, y) / n
            assert abs(mean - exact) <= 4.5 * error + 1e-6, (kind, name, mean, error, exact)
            assert error <= 0.3 * exact + 1e-6, (kind, name)


def test_the_product_is_that_of_the_exact_hessian():
    folded, loss_of, x, y = setting(TINY)
    point = start(TINY, folded, len(y))
    place = next(
        i for i, (path, _) in enumerate(jax.tree_util.tree_leaves_with_path(point))
        if "conv2" in str(path) and "weights" in str(path)
    )  # fmt: skip
    signs = random_signs(jax.random.key(3), point, jnp.int32(place))

    found = jax.jit(functools.partial(curvature, loss_of))(point, signs, x, y)

    def of_one(kernel):
        return loss_of({**point, "weights": {**point["weights"], "conv2": kernel}}, x, y)

    v = np.asarray(signs["weights"]["conv2"]).reshape(-1)
    exact = np.asarray(jax.jit(jax.hessian(of_one))(point["weights"]["conv2"])).reshape(
        v.size, v.size
    )
    assert set(np.unique(v)) == {-1.0, 1.0}
    assert not np.any(signs["weights"]["conv1"])
    np.testing.assert_allclose(found, v @ exact @ v, rtol=2e-4)


def test_sampling_stops_at_the_cap_or_the_tolerance():
    folded, loss_of, x, y = setting(TINY)
    point = start(TINY, folded, len(y))
    data = itertools.repeat((x, y))

    loose = estimate_traces(loss_of, point, data, Sampling(tolerance=100.0, most=50))
    strict = estimate_traces(loss_of, point, data, Sampling(tolerance=1e-9, most=9))

    assert set(loose.samples) == {8}
    assert set(strict.samples) == {9}


def test_what_is_shifted_is_what_layers_read_and_what_is_added():
    names = [[sorted(found) for found in shifted(network)] for network in (TINY, POOLED)]
    assert names == [[["act1", "act2", "act3"], ["res1", "res3"]], [["act1"], ["res2", "res3"]]]
    folded, _, x, _ = setting(TINY)
    point = start(TINY, folded, len(x))
    biases = [b for _, b in folded]
    plain = logits(TINY, biases, point, x)

    wanted = slow_nets.logits(TINY, folded, x * 256)
    np.testing.assert_allclose(plain, wanted, rtol=1e-4, atol=1e-5)
    for kind in ("operands", "residuals"):
        for name in point[kind]:
            moved = {**point, kind: {**point[kind], name: point[kind][name] + 0.5}}
            assert np.abs(logits(TINY, biases, moved, x) - plain).max() > 1e-4, (kind, name)


@pytest.mark.parametrize("errors", [activation_errors, cut_errors])
@pytest.mark.parametrize("signed", [True, False])
def test_errors_of_tensors_with_negative_values_are_roundings(errors, signed):
    real = np.random.default_rng(0).normal(size=(4, 100)).astype(np.float32)

    found = errors(real, range(4, 9), signed, True)

    assert all(found[b + 1] < 0.5 * found[b] for b in range(4, 8))
    assert found[8] < 1e-3 * np.square(real).sum() / len(real)


def test_weight_errors_are_those_of_the_quantizer_and_fall():
    kernel = np.random.default_rng(0).normal(0, 1, (3, 3, 4, 5)).astype(np.float32)

    errors = weight_errors(kernel)

    unit = 2.0 ** best_weight_scale(kernel, 3)
    quantized = np.clip(np.floor(kernel * unit + 0.5), -4, 3) / unit
    assert errors[3] == pytest.approx(float(((quantized - kernel) ** 2).sum()), rel=1e-6)
    assert list(errors) == list(range(2, 9))
    assert all(errors[b] > errors[b + 1] for b in range(2, 8))


@pytest.fixture(scope="module")
def found():
    rng = np.random.default_rng(2)
    data = Images(rng.integers(0, 256, (16, 4, 4, 3)).astype(np.uint8), rng.integers(0, 3, 16))
    return measure(TINY, folded_of(TINY), data, Sampling(most=8, batch=4), calibration=8)


def test_a_file_is_read_as_it_was_written(found, tmp_path):
    found.write(tmp_path / "s.json")

    again = read_sensitivities(tmp_path / "s.json")

    assert again == found
    assert list(found.weights) == ["conv1", "conv2", "conv3", "conv4", "fc"]
    assert sorted(found.activations) == ["act1", "act2", "act3"]
    assert sorted(found.residuals) == ["res1", "res3"]
    for entry in (*found.weights.values(), *found.activations.values()):
        assert entry.at(2) > entry.at(5) > entry.at(8) >= 0


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: tree.pop("weights"),
        lambda tree: tree.update(format=7),
        lambda tree: tree["weights"]["fc"].pop("omega"),
        lambda tree: tree["weights"]["fc"]["omega"].update({"2": float("nan")}),
        lambda tree: tree["weights"]["fc"].update(omega={}),
        lambda tree: tree["weights"]["fc"].update(elements=float("inf")),
        lambda tree: tree.update(activations=[]),
    ],
)
def test_other_files_are_refused(found, change, tmp_path):
    tree = json.loads(json.dumps({"format": 1, **dataclasses.asdict(found)}))
    change(tree)
    (tmp_path / "s.json").write_text(json.dumps(tree))

    with pytest.raises(CheckpointError, match="s.json"):
        read_sensitivities(tmp_path / "s.json")


def test_missing_and_damaged_files_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no sensitivities at"):
        read_sensitivities(tmp_path / "none.json")
    (tmp_path / "s.json").write_text('{"format": 1, "wei')
    with pytest.raises(CheckpointError, match="s.json"):
        read_sensitivities(tmp_path / "s.json")
    with pytest.raises(CheckpointError, match="no sensitivity at 3 bits"):
        read_one().at(3)


def read_one():
    from pqjax.graph.sensitivity import Sensitivity

    return Sensitivity(1.0, 0.1, 4, {2: 1.0})


def test_the_command_says_what_is_missing_in_one_line(tmp_path, capsys, monkeypatch):
    assert main(["--float", str(tmp_path / "none.npz")]) == 1
    said = capsys.readouterr().err
    assert said.startswith("nets.sensitivity: no checkpoint at") and said.count("\n") == 1
    monkeypatch.delenv("PQJAX_DATA", raising=False)
    assert main(["--net", "minionn"]) == 1
    assert "PQJAX_DATA is not set" in capsys.readouterr().err
    assert main(["--most", "1"]) == 1
