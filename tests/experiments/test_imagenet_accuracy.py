"""The accuracy table of a network survives interruption."""

import argparse
import types

import numpy as np
import pytest

from experiments import imagenet_accuracy as accuracy


def test_rows_of_an_earlier_run_are_kept_when_one_is_interrupted(monkeypatch):
    kept: dict = {}
    monkeypatch.setattr(accuracy, "settle", lambda: None)
    pictures = np.zeros((2, 4, 4, 3), np.uint8), np.array([0, 1])
    monkeypatch.setattr(accuracy, "load_photographs", lambda name: pictures)
    source = types.SimpleNamespace(
        source={"sha256": "a"}, architecture=None, of_integers=lambda: None
    )
    named = types.SimpleNamespace(read=lambda: source)
    monkeypatch.setattr(accuracy, "NAMED", {"mobilenetv2": named})
    net = types.SimpleNamespace(of=lambda *_: types.SimpleNamespace(logits=lambda x: np.eye(2)))
    monkeypatch.setattr(accuracy, "FoldedNet", net)

    def write(name, config, rows, network="mobilenetv2"):
        assert network == "mobilenetv2"
        kept["tree"] = {"config": config, "runs": list(rows)}

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(accuracy, "write", write)
    monkeypatch.setattr(accuracy, "read", lambda name: kept["tree"])
    monkeypatch.setattr(accuracy, "kept", interrupted)
    write("", {"images": 1}, [{"network": "W8A8", "top1": 0.1}])
    args = argparse.Namespace(images=2, settings=[], network="mobilenetv2")
    config = accuracy.compute(args)["config"]
    rows = [{"network": name, "top1": 0.5} for name in ("W8A8", "W4A6")]
    write("", config, rows)

    args.settings = ["W8A8", "W6A6", "W4A6"]
    with pytest.raises(KeyboardInterrupt):
        accuracy.compute(args)
    args.settings = ["W8A8", "W4A6"]
    again = accuracy.compute(args)

    assert again["runs"] == [{"network": "float", "top1": 1.0}, *rows]
    write("", {**config, "images": 3}, rows)
    with pytest.raises(KeyboardInterrupt):  # of other photographs: not the same rows
        accuracy.compute(args)
