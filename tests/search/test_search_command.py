"""`pqjax search`: what it prints and writes, and what it refuses in one line."""

import pathlib

import pytest

from pqjax.cli import main
from pqjax.graph import Graph
from pqjax.graph.widths import widths_of
from pqjax.planner import plan
from pqjax.search import parse_bits

CHECKPOINTS = pathlib.Path(__file__).parents[2] / "nets" / "checkpoints"
MODEL = str(CHECKPOINTS / "minionn_w4a4.npz")
KNOWN = ["--sensitivity", str(CHECKPOINTS / "minionn_sensitivity.json")]


def test_the_graph_it_writes_costs_what_it_says(capsys, tmp_path):
    out, widths = tmp_path / "found.json", tmp_path / "widths.txt"
    limit = ["--limit", "0.45GiB", "--protocol", "privquant", "--bits", "2-5"]

    assert main(["search", MODEL, *KNOWN, *limit, "--out", str(out), "--widths", str(widths)]) == 0

    said = capsys.readouterr().out
    graph = Graph.from_json(out.read_text())
    bits = plan(graph, "privquant").cost().bits
    assert bits <= 0.45 * 8 * 2**30 and f"cost: {bits / 8e9:.6f} GB" in said
    assert (
        widths.read_text().strip() == str(widths_of(graph)) and widths.read_text().strip() in said
    )
    assert set(widths_of(graph).weights.values()) <= {2, 3, 4, 5}
    assert "least possible" in said


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ([*KNOWN, "--limit", "1MB"], "smallest feasible limit is 0."),
        ([*KNOWN, "--limit", "much"], "cannot read the limit 'much'"),
        ([*KNOWN, "--seconds", "10"], "needs --link"),
        ([*KNOWN], "one limit expected"),
        ([*KNOWN, "--limit", "1GB", "--bits", "two"], "cannot read the widths 'two'"),
        (["--sensitivity", "nowhere.json", "--limit", "1GB"], "no sensitivities at nowhere.json"),
        (
            ["--sensitivity", str(CHECKPOINTS / "resnet32_sensitivity.json"), "--limit", "1GB"],
            "they are of another network",
        ),
    ],
)
def test_what_cannot_be_done_is_one_line_and_status_one(capsys, options, wanted):
    assert main(["search", MODEL, *options]) == 1

    said = capsys.readouterr().err.strip().splitlines()
    assert wanted in said[-1] and not any("Traceback" in line for line in said)


def test_limits_are_read_in_bytes_of_both_kinds():
    assert parse_bits("0.5GB") == 4e9
    assert parse_bits("400 MiB") == 400 * 8 * 2**20
