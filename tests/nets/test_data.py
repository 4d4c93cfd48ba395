import numpy as np
import pytest

from nets.data import integer_input, load_cifar
from nets.train import main, parser
from pqjax.errors import DataError


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_missing_variable_is_a_data_error(monkeypatch):
    monkeypatch.delenv("PQJAX_DATA", raising=False)

    with pytest.raises(DataError, match="PQJAX_DATA is not set"):
        load_cifar("cifar10", "test")


def test_missing_folder_is_a_data_error(monkeypatch, tmp_path):
    monkeypatch.setenv("PQJAX_DATA", str(tmp_path))

    with pytest.raises(DataError, match="no cifar10/"):
        load_cifar("cifar10", "test")


def test_unreadable_labels_and_missing_images_are_data_errors(monkeypatch, tmp_path):
    monkeypatch.setenv("PQJAX_DATA", str(tmp_path))
    folder = tmp_path / "cifar10"
    folder.mkdir()
    (folder / "labels.npz").write_bytes(b"garbage")
    with pytest.raises(DataError, match="labels"):
        load_cifar("cifar10", "test")

    np.savez(folder / "labels.npz", test=np.zeros(10_000, np.uint8))
    with pytest.raises(DataError, match="test_"):
        load_cifar("cifar10", "test")


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="split"):
        load_cifar("cifar10", "validation")


def test_an_unknown_data_set_is_refused():
    with pytest.raises(ValueError, match="cifar10', 'cifar100'.*mnist"):
        load_cifar("mnist", "test")


def test_integer_input_is_pixel_minus_128():
    pixels = np.arange(256, dtype=np.uint8)

    np.testing.assert_array_equal(integer_input(pixels), np.arange(-128, 128))
    assert integer_input(pixels).dtype == np.int8
    np.testing.assert_array_equal(integer_input(pixels, 0), pixels)


@pytest.mark.parametrize(("net", "known"), [("resnet18", True), ("resnet50", False)])
def test_the_command_trains_what_has_a_data_set(net, known, capsys):
    words = ["float", "--net", net, "--out", "run"]

    if known:
        assert parser().parse_args(words).net == net
    else:
        with pytest.raises(SystemExit):
            parser().parse_args(words)
        assert "resnet50" in capsys.readouterr().err


def test_the_command_turns_errors_into_one_line(monkeypatch, capsys, tmp_path):
    monkeypatch.delenv("PQJAX_DATA", raising=False)

    code = main(["float", "--out", str(tmp_path / "run")])

    assert code == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["qat", "--out", str(tmp_path / "run")]) == 1
    assert "--float" in capsys.readouterr().err
