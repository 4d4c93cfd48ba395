"""Everything that `pqjax doctor` looks at, in one tree."""

import dataclasses
import itertools
import pathlib
import platform

from pqjax.doctor.finding import Finding
from pqjax.doctor.folders import (
    Data,
    Kept,
    data,
    data_findings,
    kept,
    key_findings,
    room_findings,
    tls_findings,
)
from pqjax.doctor.machine import Machine, machine_findings, network_findings, this_machine
from pqjax.doctor.packages import Package, package_findings, wanted_packages
from pqjax.engine.rates import kept_rates, rates_path
from pqjax.errors import DataError
from pqjax.version import VERSION


@dataclasses.dataclass(frozen=True)
class Examination:
    """What was found.

    Attributes:
      version: of pqjax.
      python: its version.
      system: that it runs on.
      packages: that are wanted.
      machine: what it has.
      rates: where this machine's are kept; None where it was never measured.
      kept: what commands keep, by sort.
      data: what the experiments are given.
      findings: what is wrong, and advice.
    """

    version: str
    python: str
    system: str
    packages: list[Package]
    machine: Machine
    rates: str | None
    kept: list[Kept]
    data: Data
    findings: list[Finding]

    @property
    def well(self) -> bool:
        """Whether networks can be served and asked here."""
        return not any(finding.wrong for finding in self.findings)


def examine(
    hints: pathlib.Path, store: pathlib.Path, tls: pathlib.Path | None = None
) -> Examination:
    """Looks at this installation, this machine, and what is in these folders."""
    packages, machine, given = wanted_packages(), this_machine(), data()
    rates, unmeasured = _rates()
    folders = {hints, store}
    found = itertools.chain(
        package_findings(packages),
        machine_findings(machine),
        network_findings(),
        *(room_findings(folder) for folder in sorted(folders)),
        key_findings(hints, store),
        () if tls is None else tls_findings(tls),
        unmeasured,
        data_findings(given),
    )
    return Examination(
        VERSION, platform.python_version(), f"{platform.system()} {platform.machine()}", packages,
        machine, rates, kept(hints, store), given, list(found),
    )  # fmt: skip


def _rates() -> tuple[str | None, list[Finding]]:
    try:
        if kept_rates() is not None:
            return str(rates_path()), []
        what = "this machine was never measured: plans predict seconds of a nominal one"
    except DataError as error:
        what = str(error)
    return None, [Finding(what, "pqjax calibrate, for half a minute", wrong=False)]
