"""The rooms of the house: who may import whom, and what nobody may do."""

import ast
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]
ALLOWED = {
    "errors": set(),
    "schema": {"errors"},
    "ring": {"errors"},
    "crypto": {"errors", "ring"},
    "he": {"errors", "ring", "crypto"},  # pure: never sees a wire
    "wire": {"errors", "ring"},
    "graph": {
        "errors",
        "schema",
        "ring",
        "protocols",
    },  # what each protocol needs is stated beside it
    "ot": {"errors", "schema", "ring", "crypto", "wire"},
    "protocols": {"errors", "schema", "ring", "crypto", "wire", "ot"},
    "version": set(),
    "linear": {"errors", "schema", "ring", "he", "wire", "ot", "protocols", "graph"},
    "layers": {"errors", "ring", "he", "wire", "ot", "protocols", "graph", "linear"},
    "planner": {
        "errors",
        "schema",
        "version",
        "crypto",
        "wire",
        "graph",
        "ot",
        "protocols",
        "linear",
        "layers",
    },
    "search": {"errors", "wire", "graph", "ot", "planner"},
    "engine": {
        "errors",
        "schema",
        "version",
        "ring",
        "crypto",
        "he",
        "wire",
        "ot",
        "graph",
        "protocols",
        "linear",
        "layers",
        "planner",
    },
    "watching": {"errors", "version", "wire", "graph", "planner", "engine"},
    "pictures": {"errors", "graph"},
    "answers": {"graph"},
    "questions": {"errors", "graph", "planner", "pictures"},
    "web": {
        "errors",
        "version",
        "wire",
        "graph",
        "planner",
        "engine",
        "service",
        "answers",
        "questions",
    },
    "service": {"errors", "schema", "wire", "graph", "planner", "engine", "watching"},
    "fleet": {
        "errors",
        "schema",
        "wire",
        "graph",
        "planner",
        "engine",
        "watching",
        "pictures",
        "service",
    },
    "doctor": {"errors", "version", "wire", "graph", "planner", "engine"},
    "cli": {
        "errors",
        "schema",
        "version",
        "wire",
        "graph",
        "planner",
        "search",
        "engine",
        "watching",
        "answers",
        "questions",
        "service",
        "web",
        "fleet",
        "doctor",
    },
}


def modules(folder):
    return sorted((ROOT / folder).rglob("*.py"))


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module
            # `from pqjax import ring` names a room as much as `import pqjax.ring` does.
            yield from (
                [f"pqjax.{alias.name}" for alias in node.names]
                if node.module == "pqjax"
                else [node.module]
            )
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def room(path):
    parts = path.relative_to(ROOT / "pqjax").with_suffix("").parts
    return parts[0]


def test_every_room_imports_only_what_it_may():
    for path in modules("pqjax"):
        here = room(path)
        if here == "__init__":
            continue
        for name in imported(path):
            if name.startswith("pqjax."):
                there = name.split(".")[1]
                assert there == here or there in ALLOWED[here], f"{path.name}: {name}"
            assert not name.startswith(("nets", "experiments", "tests")), f"{path}: {name}"


def test_linear_layers_know_formats_of_the_graph_and_no_nodes():
    graph = {
        name for path in modules("pqjax/linear") for name in imported(path)
        if name.startswith("pqjax.graph")
    }  # fmt: skip

    assert graph == {"pqjax.graph.ir"}
    text = "".join(path.read_text() for path in modules("pqjax/linear"))
    assert set(re.findall(r"from pqjax.graph.ir import (.*)", text)) == {"TensorType"}


def test_nets_know_the_ring_the_graph_and_the_schema_only():
    for path in modules("nets"):
        for name in imported(path):
            if name.split(".")[0] == "pqjax":
                known = {"ring", "graph", "schema", "errors"}
                if path.parent.name == "importing":  # from a file to a command, with its report
                    known |= {"pictures", "planner", "search", "cli", "version"}
                assert name.split(".")[1] in known, f"{path}: {name}"


def test_secrets_come_from_the_operating_system_alone():
    bad = re.compile(r"np\.random|jax\.random|^import random|^from random|default_rng", re.M)
    for path in modules("pqjax"):
        assert not bad.search(path.read_text()), f"{path} draws from a generator that is no cipher"


def test_no_generator_but_the_cipher_is_imported():
    for path in modules("pqjax"):
        for name in imported(path):
            bad = ("random", "numpy.random", "jax.random", "pickle", "marshal", "shelve", "dill")
            assert not any(name == b or name.startswith(b + ".") for b in bad), f"{path}: {name}"


def test_only_functions_of_engine_process_configure_jax():
    for path in modules("pqjax"):
        text = path.read_text()
        if path.relative_to(ROOT).as_posix() != "pqjax/engine/process.py":
            assert "config.update" not in text and "os.environ[" not in text, path
            continue
        for node in ast.parse(text).body:  # at module level: imports, names, functions
            calls = [n for n in ast.walk(node) if isinstance(n, ast.Call)]
            assert isinstance(node, ast.FunctionDef) or not calls, f"{path}:{node.lineno}"


def test_ray_is_imported_where_it_is_needed_and_nowhere_before():
    for path in modules("pqjax"):
        assert not any(name.split(".")[0] == "ray" for name in imported(path)), path
    program = "import sys, pqjax.cli, pqjax.fleet; assert 'ray' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_the_rooms_are_all_there():
    found = {room(path) for path in modules("pqjax")} - {"__init__"}

    assert found == set(ALLOWED)


def test_nothing_unpickles_evaluates_or_deals():
    for path in modules("pqjax"):
        text = path.read_text()
        assert not re.search(r"\bimport pickle\b|allow_pickle=True|\beval\(|\bexec\(", text), path
        assert not re.search(r"class \w*Deal|def \w*deal", text), f"{path} holds a dealer"


def test_import_leaves_the_callers_configuration_alone():
    program = (
        "import jax; before = dict(jax.config.values); import pqjax, pqjax.cli; "
        "assert dict(jax.config.values) == before; assert not jax.config.jax_enable_x64"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
