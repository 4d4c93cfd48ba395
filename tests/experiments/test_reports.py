"""Every committed report is what its command makes of the committed results: no table is typed."""

import importlib
import json
import re
import shutil

import pytest

from experiments import record, train_nets

RESULTS = record.RESULTS
NAMES = sorted(path.stem for path in RESULTS.glob("*.json"))
IN_README = "accuracy"  # its table stands in nets/README.md
# Module and options, where the module is not called as its result.
COMMANDS = {
    "mobilenetv2-accuracy": "imagenet_accuracy --network mobilenetv2",
    "efficientnet-accuracy": "imagenet_accuracy",
    "resnet50_quick": "resnet50 --quick",
    "service_storm": "service --only storm",
}
LINKED = re.compile(r"[\w-]+\.(?:svg|trace\.json\.gz)")


@pytest.mark.parametrize("name", [name for name in NAMES if name != IN_README])
def test_a_report_is_made_from_committed_files_alone(name: str, tmp_path, monkeypatch):
    for path in (*RESULTS.glob("*.json"), *RESULTS.glob("*.gz")):
        shutil.copy(path, tmp_path)
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.delenv("QUICK", raising=False)
    module, *options = COMMANDS.get(name, name).split()

    assert (
        importlib.import_module(f"experiments.{module}").main(["--report", "--record", *options])
        == 0
    )

    text = (tmp_path / f"{name}.md").read_text()
    assert text == (RESULTS / f"{name}.md").read_text()
    drawn = {path.name for path in tmp_path.glob("*.svg")}
    assert drawn == {link for link in LINKED.findall(text) if link.endswith(".svg")}


def test_the_accuracies_in_a_readme_are_those_of_the_result():
    text = (train_nets.NETS / "README.md").read_text()

    assert train_nets.report(record.read(IN_README)["runs"]) in text


def test_results_are_rows_reports_and_what_reports_show():
    reports = {f"{name}.md" for name in NAMES if name != IN_README}
    shown = {link for name in reports for link in LINKED.findall((RESULTS / name).read_text())}

    files = {path.name for path in RESULTS.iterdir()}

    assert files == {f"{name}.json" for name in NAMES} | reports | shown


# What needs no trained network, no picture and no clock.
PREDICTED = ("figure1", "figure7", "figure9", "figure10", "table12", "copriv")
METERED = ("table2", "table4", "table9", "table10")


@pytest.mark.parametrize(
    "name", [*PREDICTED, *(pytest.param(name, marks=pytest.mark.slow) for name in METERED)]
)
def test_committed_rows_are_what_the_command_computes(name: str, tmp_path, monkeypatch):
    monkeypatch.setattr(record, "LATEST", tmp_path)

    assert importlib.import_module(f"experiments.{name}").main([]) == 0

    made, kept = (json.loads((each / f"{name}.json").read_text()) for each in (tmp_path, RESULTS))
    assert made["runs"] == kept["runs"] and made["config"] == kept["config"]
