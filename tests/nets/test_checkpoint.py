import numpy as np
import pytest
from flax import nnx

from nets.architecture import MINIONN
from nets.checkpoint import load_arrays, load_tree, save_arrays, save_tree
from nets.floating import FloatNet
from nets.pretrain import load_float, save_float
from pqjax.errors import CheckpointError


@pytest.fixture
def saved(tmp_path):
    tree = {"a": np.arange(1000, dtype=np.float32), "b": [np.ones((2, 3)), np.int32(7)]}
    save_tree(tmp_path / "t.npz", tree, {"step": 3})
    return tmp_path / "t.npz", tree


def test_a_tree_comes_back_bit_for_bit(saved):
    path, tree = saved

    got, meta = load_tree(path, tree)

    assert meta == {"step": 3}
    np.testing.assert_array_equal(got["a"], tree["a"])
    np.testing.assert_array_equal(got["b"][0], tree["b"][0])
    assert got["b"][1] == 7


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_a_checkpoint_error(saved, share):
    path, _ = saved
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])

    with pytest.raises(CheckpointError):
        load_arrays(path)


def test_an_altered_file_is_a_checkpoint_error(saved):
    path, tree = saved
    whole = bytearray(path.read_bytes())
    for i in range(60, 200):
        whole[i] ^= 0x55
    path.write_bytes(bytes(whole))

    with pytest.raises(CheckpointError):
        load_tree(path, tree)


def test_garbage_and_absence_are_checkpoint_errors(tmp_path):
    (tmp_path / "g.npz").write_bytes(b"not a zip file")

    for name in ("g.npz", "absent.npz"):
        with pytest.raises(CheckpointError, match=name):
            load_arrays(tmp_path / name)


def test_a_pickle_is_refused(tmp_path):
    np.savez(tmp_path / "p.npz", evil=np.array([object()], dtype=object))

    with pytest.raises(CheckpointError):
        load_arrays(tmp_path / "p.npz")


def test_another_model_is_refused(saved):
    path, tree = saved

    with pytest.raises(CheckpointError, match="another model"):
        load_tree(path, {"a": tree["a"]})
    with pytest.raises(CheckpointError, match="must be"):
        load_tree(path, {**tree, "a": np.zeros(3, np.float32)})


def test_a_float_network_comes_back(tmp_path):
    net = FloatNet(MINIONN, nnx.Rngs(3))
    _, params, stats = nnx.split(net, nnx.Param, nnx.BatchStat)
    state = {"params": nnx.to_pure_dict(params), "stats": nnx.to_pure_dict(stats)}

    save_float(tmp_path / "f.npz", state, {"config": 1})
    got, meta = load_float(tmp_path / "f.npz", MINIONN)

    assert meta == {"config": 1}
    want = np.asarray(net.kernel[...]).astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(got.kernel[...], want)


def test_descriptions_must_be_objects(tmp_path):
    save_arrays(tmp_path / "l.npz", {}, [1])  # type: ignore[arg-type]

    with pytest.raises(CheckpointError, match="JSON object"):
        load_arrays(tmp_path / "l.npz")
