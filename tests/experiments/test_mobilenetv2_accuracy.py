"""The accuracy table of MobileNetV2 survives interruption."""

import argparse
import types

import numpy as np
import pytest

from experiments import mobilenetv2_accuracy as accuracy


def test_rows_of_an_earlier_run_are_kept_when_one_is_interrupted(monkeypatch):
    kept: dict = {}
    monkeypatch.setattr(accuracy, "settle", lambda: None)
    pictures = np.zeros((2, 4, 4, 3), np.uint8), np.array([0, 1])
    monkeypatch.setattr(accuracy, "load_photographs", lambda name: pictures)
    monkeypatch.setattr(accuracy, "read_mobilenet", lambda: None)
    net = types.SimpleNamespace(of=lambda *_: types.SimpleNamespace(logits=lambda x: np.eye(2)))
    monkeypatch.setattr(accuracy, "FoldedNet", net)

    def write(name, config, rows):
        kept["tree"] = {"config": config, "runs": list(rows)}

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(accuracy, "write", write)
    monkeypatch.setattr(accuracy, "read", lambda name: kept["tree"])
    monkeypatch.setattr(accuracy, "kept_mobilenet", interrupted)
    write("", {"images": 1}, [{"network": "W8A8", "top1": 0.1}])
    args = argparse.Namespace(images=2, settings=[])
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
