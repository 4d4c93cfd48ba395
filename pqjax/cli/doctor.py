"""`pqjax doctor`: what this machine and this installation have, what is wrong, and what to do."""

import argparse
import dataclasses
import json
import pathlib
from collections.abc import Iterable, Iterator

from pqjax.cli.console import say
from pqjax.cli.options import Commands, command, hints_option, json_option, store_option
from pqjax.doctor import Examination, Finding, examine, try_out
from pqjax.doctor.folders import DATA
from pqjax.doctor.machine import FEATURES
from pqjax.doctor.packages import EXTRAS, PROJECT, missing
from pqjax.engine.process import settle
from pqjax.errors import PqjaxError


def add(commands: Commands) -> None:
    """Adds the command."""
    made = command(
        commands, "doctor", _doctor, "say what this machine has, what is missing, and how to get it",
        "doctor", "doctor --trial", "doctor --tls pki --json",
    )  # fmt: skip
    trial = "also serve a small network on loopback, ask it, and compare the answer"
    made.add_argument("--trial", action="store_true", help=trial)
    tls = "look at this folder of `pqjax certs`, too"
    made.add_argument("--tls", type=pathlib.Path, metavar="DIR", help=tls)
    hints_option(made, "where commands keep hints, and servers the keys to them")
    store_option(made, "where commands keep stored preparations")
    json_option(made)


def _doctor(args: argparse.Namespace) -> int:
    found = examine(args.hints, args.store, args.tls)
    took = None
    if args.trial:
        settle()
        try:
            took = try_out()
        except PqjaxError as error:
            failed = Finding(
                f"a small network was not served and asked: {error}",
                "see what is wrong above, or report it",
            )
            found = dataclasses.replace(found, findings=[*found.findings, failed])
    if args.json:
        print(json.dumps({"well": found.well, "trial_s": took, **dataclasses.asdict(found)}))
    else:
        print("\n".join(_lines(found, took)))
    wrong = sum(finding.wrong for finding in found.findings)
    if wrong:
        say(f"pqjax: {wrong} thing{'s are' if wrong > 1 else ' is'} wrong, see above")
    else:
        say("pqjax: networks can be served and asked about here")
    return 0 if found.well else 1


def _lines(found: Examination, took: float | None) -> Iterator[str]:
    yield f"pqjax {found.version}, Python {found.python}, {found.system}"
    yield from _section("packages", _packages(found))
    yield from _section("extras", _extras(found))
    yield from _section("machine", _machine(found, took))
    yield from _section("kept", _kept(found))
    yield from _section("data", _data(found))
    for title, wrong in (("wrong", True), ("advice", False)):
        these = [finding for finding in found.findings if finding.wrong == wrong]
        if these:
            yield f"{title}:"
        for finding in these:
            yield f"  {finding.what}"
            yield f"      -> {finding.do}"


def _section(title: str, rows: Iterable[tuple[str, str]]) -> list[str]:
    rows = list(rows)
    wide = max((len(name) for name, _ in rows), default=0)
    return [f"{title}:", *(f"  {name:{wide}}  {text}".rstrip() for name, text in rows)]


def _packages(found: Examination) -> Iterator[tuple[str, str]]:
    for each in found.packages:
        if each.extra is None:
            yield (
                each.name,
                f"{each.found or 'missing'}{'' if each.fits else f'  (wants {each.wanted})'}",
            )


def _extras(found: Examination) -> Iterator[tuple[str, str]]:
    """Those that are whole, and what the others lack."""
    lacking, named = missing(found.packages), {each.extra for each in found.packages}
    for extra, what in EXTRAS.items():
        if extra not in named:
            continue
        if extra in lacking:
            names = ", ".join(each.name for each in lacking[extra])
            yield extra, f"lacks {names}: pip install '{PROJECT}[{extra}]'  ({what})"
        else:
            versions = (f"{x.name} {x.found}" for x in found.packages if x.extra == extra)
            yield extra, ", ".join(versions)


def _machine(found: Examination, took: float | None) -> Iterator[tuple[str, str]]:
    here = found.machine
    yield "processor", f"{here.processor}, {here.cores} cores"
    if here.features is not None:
        for name, there in here.features.items():
            yield name, f"{'yes' if there else 'no'}  ({FEATURES[name]})"
    there = "" if here.available_bytes is None else f", {_size(here.available_bytes)} available"
    yield "memory", f"{_size(here.memory_bytes)}{there}"
    yield "descriptors", "any number" if here.descriptors < 0 else str(here.descriptors)
    yield "rates", found.rates or "nominal; measure them: pqjax calibrate"
    if took is not None:
        yield "trial", f"a small network was served and asked, right, in {took:.1f} s"


def _kept(found: Examination) -> Iterator[tuple[str, str]]:
    for each in found.kept:
        yield each.what, f"{each.files} files, {_size(each.bytes)}, {each.path}"


def _data(found: Examination) -> Iterator[tuple[str, str]]:
    yield "PQJAX_DATA", found.data.folder or "not set: pictures and weights come from elsewhere"
    if found.data.folder is not None:
        for name, there in found.data.there.items():
            yield name, f"{'there' if there else 'not there'}  ({DATA[name]})"


def _size(count: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count} bytes"
