"""Committed networks decide as their fake-quantized twins do."""

import os
import pathlib

import numpy as np
import pytest

from nets.agreement import CHECKPOINTS, agreement, check, main, restored
from nets.architecture import ARCHITECTURES
from nets.quantized import Widths
from nets.train import file_part, read_bits
from pqjax.errors import CheckpointError, DataError
from pqjax.graph import load_model

QUANTIZED = sorted(p for p in CHECKPOINTS.glob("*.npz") if "float" not in p.name)


def twin(path):
    graph, weights, meta = load_model(path)
    given = meta["config"]["widths"]
    widths = Widths(**{**given, "weights": tuple(given["weights"])})
    return restored(ARCHITECTURES[meta["config"]["net"]], graph, weights, widths), graph, weights


@pytest.mark.parametrize("path", [QUANTIZED[0], QUANTIZED[-1]], ids=lambda p: p.name)
def test_a_stored_network_agrees_on_random_images(path):
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3)).astype(np.uint8)

    found = agreement(*twin(path), images)

    assert found.exact == found.decisions == found.images == 8


@pytest.mark.slow
@pytest.mark.skipif("PQJAX_DATA" not in os.environ, reason="needs CIFAR in PQJAX_DATA")
@pytest.mark.parametrize("path", QUANTIZED, ids=lambda p: p.name)
def test_a_committed_network_agrees_on_the_test_set(path):
    found = check(path, 10_000)

    assert found.decisions >= 0.999 * found.images


def test_other_widths_are_refused():
    graph, weights, _ = load_model(CHECKPOINTS / "minionn_w2a4.npz")
    architecture = ARCHITECTURES["minionn"]

    with pytest.raises(CheckpointError, match="conv1 of 5 bits is not there"):
        restored(architecture, graph, weights, Widths.parse("W5A4", architecture))


def test_the_command_says_what_is_missing_in_one_line(tmp_path, capsys):
    assert main([str(tmp_path / "none.npz")]) == 1
    said = capsys.readouterr().err
    assert said.startswith("nets.agreement: ") and said.count("\n") == 1


def test_training_reads_widths_from_a_file(tmp_path):
    (tmp_path / "w.txt").write_text("4,2,2,4/A4\n")

    assert read_bits(f"@{tmp_path / 'w.txt'}") == "4,2,2,4/A4"
    assert read_bits("W4A4") == "W4A4"
    assert file_part("4,2,2,4/A4") == "4224a4" and len(file_part("4," * 99 + "4/A4")) == 12
    with pytest.raises(DataError, match="cannot read the widths"):
        read_bits(f"@{pathlib.Path(tmp_path) / 'none'}")
