"""The parts of exp-resnet50: blocks cut out of a network, time lines, checks before it starts."""

import gzip
import json

import numpy as np
import pytest
from networks import resnet32

from experiments import record, resnet50, timeline
from experiments.two_processes import Run
from pqjax import plan
from pqjax.errors import DataError
from pqjax.graph import every_value, reference, validate

ENTRY = {
    "phase": "online", "layer": "s1b2.conv1", "begin": 1.0, "seconds": 2.0, "wait_seconds": 0.5,
    "send_seconds": 0.25, "sent_bits": 8, "received_bits": 16, "sent_bytes": 17,
    "received_bytes": 18, "messages": 1, "inference": 0,
}  # fmt: skip


@pytest.mark.parametrize("name", ["s1b1", "s2b1", "s3b2"])
def test_a_block_of_a_network_computes_what_it_does_in_there(name):
    graph, weights, x = resnet32(3, blocks=2, stages=(4, 8, 16))
    values = every_value(graph, weights, x[None])

    small, kept, given = resnet50.block_of(graph, weights, values, name)

    validate(small, kept)
    end = small.output.name
    np.testing.assert_array_equal(reference(small, kept, given), values[end][0])
    assert set(kept) < set(weights) and end.startswith(name)


def test_shares_of_a_layer_add_up_to_its_seconds():
    found = timeline.shares(ENTRY)

    assert found == {"computing": 1.25, "sending": 0.25, "waiting": 0.5}


def test_a_chrome_trace_has_both_parties_side_by_side():
    tree = timeline.chrome_trace({"server": [ENTRY], "client": [ENTRY, ENTRY]})

    layers = [e for e in tree["traceEvents"] if e["name"] == "online s1b2.conv1"]
    assert [e["pid"] for e in layers] == [0, 1, 1]
    assert all(e["ts"] == 1e6 and e["dur"] == 2e6 for e in layers)
    parts = [e for e in tree["traceEvents"] if e.get("tid") == 1 and e["pid"] == 0]
    assert sum(e["dur"] for e in parts) == 2e6
    assert parts[0]["ts"] == 1e6 and parts[-1]["ts"] + parts[-1]["dur"] == 3e6


def test_a_trace_is_kept_once_for_viewers_and_for_reports(monkeypatch, tmp_path):
    monkeypatch.setattr(record, "into", tmp_path)
    made = plan(resnet32(3, blocks=1, stages=(4, 8, 16))[0], "pqjax")
    layers = [{**ENTRY, "layer": line.layer, "seconds": 1 / 3} for line in made.schedule()]
    client, server = [
        {"trace": [*each, {**ENTRY, "inference": 1}]} for each in (layers, layers[::-1])
    ]
    run = Run(np.zeros(1), server, client, 0.0, 0.0)

    path = timeline.write_trace("net", made, run)
    first, found = path.read_bytes(), timeline.read_trace("net")

    events = json.loads(gzip.decompress(first))["traceEvents"]
    assert sum(e["ph"] == "X" and e["tid"] == 0 for e in events) == 2 * len(layers)
    kinds = {step.node.name: step.node.kind for step in made.steps}
    assert found["client"] == [
        {**entry, "seconds": 0.333333, "kind": kinds.get(entry["layer"], "")} for entry in layers
    ]
    assert found["server"] == found["client"][::-1]
    assert timeline.write_trace("net", made, run).read_bytes() == first
    with pytest.raises(DataError, match="make exp-other"):
        timeline.read_trace("other_pqjax")


def test_the_longest_layers_come_first():
    short = {**ENTRY, "layer": "fc", "seconds": 0.9}
    text = timeline.top_ten({"server": [short, ENTRY], "client": [ENTRY]})

    assert text.index("s1b2.conv1") < text.index("fc")
    assert timeline.by_group([ENTRY, short]).keys() == {"s1b2", "ends"}


def test_kinds_of_steps_add_up():
    conv, relu = {**ENTRY, "kind": "Conv"}, {**ENTRY, "kind": "Relu", "seconds": 1.0}
    text = timeline.by_kind({"server": [relu, conv, conv], "client": [conv, relu]})

    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    rows = {line[1]: dict(zip(lines[0], line, strict=True)) for line in lines[2:]}
    assert list(rows) == ["Conv", "Relu"]
    assert float(rows["Conv"]["seconds"]) == 4.0 and float(rows["Conv"]["server waiting"]) == 1.0
    assert float(rows["Conv"]["client computing"]) == 1.25


def test_too_little_memory_or_disk_is_said_before_anything_starts(monkeypatch, tmp_path):
    monkeypatch.setattr(resnet50, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(resnet50, "NEEDED_BYTES", 1 << 60)
    with pytest.raises(DataError, match="GiB of memory are free.*QUICK=1"):
        resnet50.check_machine()

    monkeypatch.setattr(resnet50, "NEEDED_BYTES", 1)
    monkeypatch.setattr(resnet50, "NEEDED_DISK", 1 << 60)
    with pytest.raises(DataError, match="MiB are needed.*XDG_CACHE_HOME"):
        resnet50.check_machine()


@pytest.mark.parametrize(("option", "wanted"), [([], "resnet50"), (["--quick"], "resnet50_quick")])
def test_a_quick_answer_does_not_replace_a_full_one(monkeypatch, tmp_path, option, wanted):
    monkeypatch.setattr(record, "LATEST", tmp_path)
    monkeypatch.setattr(resnet50, "compute", lambda args: {"config": {}, "runs": [args.quick]})
    monkeypatch.setattr(resnet50, "report", str)

    assert resnet50.main(option) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"{wanted}.json", f"{wanted}.md"]
