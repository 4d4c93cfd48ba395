"""The packages that this project wants, as its own metadata names them, and those that are installed."""

import dataclasses
import importlib.metadata
import platform
import re
from collections.abc import Iterator, Sequence

from pqjax.doctor.finding import Finding

PROJECT = "pqjax"
# What every extra is for; `dev` is for who works on the project itself, and left out.
EXTRAS = {
    "tls": "certificates: pqjax certs",
    "watch": "metrics for Prometheus: pqjax serve --metrics",
    "otel": "spans for OpenTelemetry",
    "web": "pqjax demo and pqjax client",
    "nets": "training networks, photographs, and the network that pqjax demo shows",
    "import": "pqjax import of ONNX files",
    "keras": "pqjax import of Keras files",
    "fleet": "pqjax fleet: replicas on a Ray cluster",
    "plots": "the experiments' pictures",
    "browser": "tests of the page in a browser",
    "docs": "the site of the pages: make docs",
    "fuzz": "searches for input that breaks a parser: make fuzz",
}
_REQUIREMENT = re.compile(
    r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*\(?([^;()]*)\)?\s*(?:;\s*(.*))?"
)
_EXTRA = re.compile(r"extra\s*==\s*['\"]([^'\"]+)['\"]")
_BOUND = re.compile(r"\s*(>=|<=|==|!=|>|<)\s*(\d+(?:\.\d+)*)\s*")


@dataclasses.dataclass(frozen=True)
class Package:
    """A package that is wanted.

    Attributes:
      name: as its registry has it.
      wanted: bounds of its version, for instance ">=1.9,<1.16".
      found: the version that is installed; None where there is none.
      extra: of this project, which brings it; None where all need it.
    """

    name: str
    wanted: str
    found: str | None
    extra: str | None = None

    @property
    def fits(self) -> bool:
        """Whether it is there, in a version that is wanted."""
        return self.found is not None and within(self.found, self.wanted)


def wanted_packages() -> list[Package]:
    """What this project's metadata names; nothing where it is not installed."""
    try:
        lines = importlib.metadata.requires(PROJECT) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    found = []
    for line in lines:
        match = _REQUIREMENT.fullmatch(line)
        if match is None or match[1] == PROJECT:  # an extra made of others
            continue
        extra = _EXTRA.search(match[3] or "")
        name, which = match[1], extra[1] if extra else None
        if which is None or which in EXTRAS:
            found.append(Package(name, match[2].replace(" ", ""), installed(name), which))
    return found


def installed(name: str) -> str | None:
    """The version of a package; None where it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def within(version: str, bounds: str) -> bool:
    """Whether a version keeps to all bounds, of which only the released numbers are compared.

    A bound that is not understood holds nobody up.
    """
    for bound in filter(None, bounds.split(",")):
        match = _BOUND.fullmatch(bound)
        if match is None:
            continue
        here, there = _numbers(version), _numbers(match[2])
        longest = max(len(here), len(there))
        here, there = (n + (0,) * (longest - len(n)) for n in (here, there))
        holds = {
            ">=": here >= there, "<=": here <= there, ">": here > there,
            "<": here < there, "==": here == there, "!=": here != there,
        }  # fmt: skip
        if not holds[match[1]]:
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, match[0].split("."))) if match else ()


def missing(packages: Sequence[Package]) -> dict[str, list[Package]]:
    """Of every extra that is not whole, what is missing or has a version that is not wanted."""
    found: dict[str, list[Package]] = {}
    for each in packages:
        if each.extra is not None and not each.fits:
            found.setdefault(each.extra, []).append(each)
    return found


def package_findings(packages: Sequence[Package]) -> Iterator[Finding]:
    """Of Python and of what all need; an extra that was asked for in part is worth a word, too."""
    if not packages:
        yield Finding(
            f"{PROJECT} runs from a folder and is not installed: what it wants is not known",
            "pip install . in that folder", wrong=False,
        )  # fmt: skip
        return
    python = importlib.metadata.metadata(PROJECT)["Requires-Python"] or ""
    if not within(platform.python_version(), python):
        here = platform.python_version()
        yield Finding(f"this is Python {here}, and {python} is needed", "install another Python")
    for each in packages:
        if each.extra is None and not each.fits:
            there = "missing" if each.found is None else f"{each.found}"
            yield Finding(
                f"{each.name} is {there}, and {each.wanted or 'any version of it'} is needed",
                f"pip install '{each.name}{each.wanted}'",
            )
        elif each.found is not None and not each.fits:
            yield Finding(
                f"{each.name} is {each.found}, and extra {each.extra} wants {each.wanted}",
                f"pip install '{PROJECT}[{each.extra}]'", wrong=False,
            )  # fmt: skip
