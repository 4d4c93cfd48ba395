import importlib

import pytest

from experiments import record

SCRIPTS = ("table2", "table4", "table9", "table12", "figure7", "copriv", "minionn", "bench",
           "table10", "figure1", "figure9", "figure10", "resnet32", "resnet50", "figure8", "table6",
           "table7", "table11", "mobilenetv2", "mobilenetv2_accuracy")  # fmt: skip


@pytest.mark.parametrize("name", SCRIPTS)
def test_an_unknown_option_is_one_line_and_status_one(name, capsys):
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"experiments.{name}").main(["--bogus"])

    said = capsys.readouterr().err
    assert ended.value.code == 1
    assert said.count("\n") == 1 and "--bogus" in said


def test_a_report_without_its_result_is_one_line_and_status_one(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(record, "RESULTS", tmp_path)

    assert importlib.import_module("experiments.figure7").main(["--report"]) == 1
    assert capsys.readouterr().err == (
        "exp-figure7: figure7.json is not there: run make exp-figure7 first\n"
    )
