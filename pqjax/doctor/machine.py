"""The machine: processor, cores, memory, descriptors, and whether two processes can talk on it."""

import dataclasses
import os
import pathlib
import resource
import socket
from collections.abc import Iterator

from pqjax.doctor.finding import Finding
from pqjax.engine.memory import available_bytes
from pqjax.engine.rates import processor

LEAST_BYTES = 1 << 30  # a process that has compiled a network's kernels takes about half of it
LEAST_DESCRIPTORS = 256  # a connection each, of which 64 may wait, and files
_PATIENCE_S = 5.0
# What a processor says of itself, and what it matters for; the first two are missed.
FEATURES = {
    "aes": "AES in hardware: keys, masks and hashes",
    "avx2": "whole vectors: kernels, products of polynomials",
    "avx512f": "longer vectors",
    "avx512_vnni": "products of 8-bit integers",
}
_ARM = {"avx2": "asimd"}  # what the same is called there
_MISSED = ("aes", "avx2")


@dataclasses.dataclass(frozen=True)
class Machine:
    """What there is of it.

    Attributes:
      processor: its model.
      cores: that this process may use.
      features: of `FEATURES`, whether it has each; None where the system does not say.
      memory_bytes: in all.
      available_bytes: of them without swapping; None where the system does not say.
      descriptors: that a process may have open.
    """

    processor: str
    cores: int
    features: dict[str, bool] | None
    memory_bytes: int
    available_bytes: int | None
    descriptors: int


def this_machine() -> Machine:
    """What the system says."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return Machine(processor(), cores, features(_cpuinfo()), memory, available_bytes(), descriptors)


def _cpuinfo() -> str:
    try:
        return pathlib.Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


def features(cpuinfo: str) -> dict[str, bool] | None:
    """Which of `FEATURES` the text of /proc/cpuinfo names; None where it names none of anything."""
    for line in cpuinfo.splitlines():
        name, _, words = line.partition(":")
        if name.strip() in ("flags", "Features"):
            has = set(words.split())
            return {feature: bool(has & {feature, _ARM.get(feature)}) for feature in FEATURES}
    return None


def machine_findings(machine: Machine) -> Iterator[Finding]:
    """Too little memory or too few descriptors is wrong; what is slow is worth a word."""
    there = machine.available_bytes
    if there is not None and there < LEAST_BYTES:
        yield Finding(
            f"{there / 1e9:.2f} GB of memory are available, {LEAST_BYTES / 1e9:.2f} GB are the least",
            "end other programs, or take a machine that has more",
        )
    if 0 <= machine.descriptors < LEAST_DESCRIPTORS:  # below 0: any number
        yield Finding(
            f"a process may have {machine.descriptors} files and connections open, and "
            f"{LEAST_DESCRIPTORS} are the least for a server",
            f"ulimit -n {LEAST_DESCRIPTORS}, or more",
        )
    for feature in _MISSED:
        if machine.features is not None and not machine.features[feature]:
            yield Finding(
                f"the processor has no {feature} ({FEATURES[feature]}), or a virtual machine hides it",
                "all works, and takes longer; predictions need pqjax calibrate", wrong=False,
            )  # fmt: skip


def network_findings(host: str = "127.0.0.1") -> Iterator[Finding]:
    """Listens on a free port of this host, dials it, and says a byte."""
    try:
        with socket.create_server((host, 0)) as listener:
            listener.settimeout(_PATIENCE_S)
            with socket.create_connection(listener.getsockname()[:2], _PATIENCE_S) as one:
                other, _ = listener.accept()
                with other:
                    other.settimeout(_PATIENCE_S)
                    one.sendall(b"?")
                    if other.recv(1) == b"?":
                        return
        what = "another byte came"
    except OSError as error:
        what = str(error)
    yield Finding(
        f"two sockets on {host} cannot talk to each other: {what}",
        "let this process use the loopback network (a sandbox or firewall may be in the way)",
    )
