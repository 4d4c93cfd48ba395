import importlib
import shutil

import pytest

from experiments import record

SCRIPTS = ("table2", "table4", "table9", "table12", "figure7", "copriv", "minionn", "bench",
           "table10", "figure1", "figure9", "figure10", "resnet32", "resnet18", "resnet50", "hequant",
           "figure8",
           "table6", "table7", "table11", "mobilenetv2", "imagenet_accuracy", "efficientnet", "history",
           "overview", "seconds", "batches", "service", "evidence")  # fmt: skip


@pytest.mark.parametrize("name", SCRIPTS)
def test_an_unknown_option_is_one_line_and_status_one(name, capsys):
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"experiments.{name}").main(["--bogus"])

    said = capsys.readouterr().err
    assert ended.value.code == 1
    assert said.count("\n") == 1 and "--bogus" in said


def test_a_report_without_its_result_is_one_line_and_status_one(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr(record, "LATEST", tmp_path)

    assert importlib.import_module("experiments.figure7").main(["--report"]) == 1
    assert capsys.readouterr().err == (
        "exp-figure7: figure7.json is not there: run make exp-figure7 first\n"
    )


def test_only_record_touches_committed_files(capsys, tmp_path, monkeypatch):
    """And what was not computed anew is read from there."""
    results, latest = tmp_path / "results", tmp_path / "latest"
    shutil.copytree(record.RESULTS, results)
    before = {path.name: path.read_bytes() for path in results.iterdir()}
    monkeypatch.setattr(record, "RESULTS", results)
    monkeypatch.setattr(record, "LATEST", latest)
    main = importlib.import_module("experiments.figure7").main

    assert main(["--report"]) == 0
    assert {path.name: path.read_bytes() for path in results.iterdir()} == before
    assert (latest / "figure7.md").read_bytes() == before["figure7.md"]
    assert str(latest) in capsys.readouterr().err

    (results / "figure7.md").unlink()
    assert main(["--report", "--record"]) == 0
    assert (results / "figure7.md").read_bytes() == before["figure7.md"]
