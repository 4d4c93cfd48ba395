"""The benches' meters: AES bytes by party, memory by process."""

import threading

import numpy as np
from Crypto.Cipher import AES

from experiments import bench_memory
from experiments.bench import AesCounter
from pqjax.crypto.crhash import Tweaks, hash_blocks
from pqjax.crypto.prg import Stream
from pqjax.ot.silent_sets import SETS


def test_the_aes_bytes_of_a_hash_and_a_stream_are_counted():
    tweaks = Tweaks(AES.new(bytes(16), AES.MODE_ECB), 0, 0)
    x, out = np.ones((100, 2), np.uint64), np.empty((100, 1, 2), np.uint64)
    before = Tweaks.permute, Stream.encrypt

    def work():
        hash_blocks(x, tweaks, out)
        Stream(bytes(16)).take(4096)

    with AesCounter() as counter:
        party = threading.Thread(target=work, name="of-1")
        party.start()
        party.join()

    assert counter.bytes == [0, 2 * x.nbytes + 4096]  # a hash is two passes
    assert (Tweaks.permute, Stream.encrypt) == before


def test_peak_memory_is_of_either_party_and_more_than_its_store():
    rows = 16 * SETS["b10"].made

    for most in bench_memory.peaks("b10"):
        assert 10 * rows < most < 1 << 29
