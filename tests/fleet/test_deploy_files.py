"""The files in docs/deploy: well-formed, of one mind with each other, and commands that pqjax has."""

import json
import pathlib
import re
import tomllib

import pytest
import yaml

from pqjax.cli import parser

ROOT = pathlib.Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "deploy"
KNOWN = {
    "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "RUN", "STOPSIGNAL",
    "USER", "VOLUME", "WORKDIR",
}  # fmt: skip


def containerfile() -> list[tuple[str, str]]:
    """Its instructions and what follows each, in order."""
    text = re.sub(r"\\\n", " ", (FOLDER / "Containerfile").read_text())
    lines = [line.strip() for line in text.splitlines()]
    words = [line.partition(" ") for line in lines if line and not line.startswith("#")]
    return [(name, rest.strip()) for name, _, rest in words]


def kubernetes():
    return list(yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text()))


COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text())
PROMETHEUS = yaml.safe_load((FOLDER / "prometheus.yaml").read_text())
OBJECTS = {(each["kind"], each["metadata"]["name"]): each for each in kubernetes()}
POD = OBJECTS["Deployment", "pqjax"]["spec"]["template"]
(CONTAINER,) = POD["spec"]["containers"]
COMMANDS = {
    "Containerfile": json.loads(dict(containerfile())["CMD"]),
    "compose server": COMPOSE["services"]["server"]["command"],
    "compose client": COMPOSE["services"]["client"]["command"],
    "kubernetes": CONTAINER["args"],
}


@pytest.mark.parametrize("where", COMMANDS)
def test_commands_are_ones_that_pqjax_has(where):
    assert all(isinstance(word, str) for word in COMMANDS[where])

    args = parser().parse_args(COMMANDS[where])

    assert args.command == ("infer" if where == "compose client" else "serve")
    assert args.tls == "/pki"


def test_commands_in_comments_are_ones_that_pqjax_has():
    texts = [path.read_text() for path in FOLDER.iterdir()]
    found = [line.split() for text in texts for line in re.findall(r"^# +pqjax (.+)$", text, re.M)]

    assert len(found) == 2
    for words in found:
        assert parser().parse_args(words).command == "certs"


def test_the_containerfile_is_made_of_known_instructions_and_of_what_is_there():
    instructions = containerfile()
    names = [name for name, _ in instructions]
    said = dict(instructions)

    assert names[0] == "FROM" and set(names) <= KNOWN
    assert said["FROM"] == "python:3.12-slim"
    for name, rest in instructions:
        if name == "COPY":
            assert all((ROOT / source).exists() for source in rest.split()[:-1]), rest
        if rest.startswith("["):
            assert all(isinstance(word, str) for word in json.loads(rest))
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert said["ARG"].startswith("EXTRAS=") and set(said["ARG"][7:].split(",")) <= set(extras)
    assert json.loads(said["ENTRYPOINT"]) == ["pqjax"]
    assert names.index("USER") < names.index("ENTRYPOINT") and said["USER"] == "pqjax"


@pytest.mark.parametrize("where", [where for where in COMMANDS if "client" not in where])
def test_ports_are_those_that_are_opened(where):
    args = parser().parse_args(COMMANDS[where])
    ports = [address.rpartition(":")[2] for address in (args.listen, args.metrics)]

    assert dict(containerfile())["EXPOSE"].split() == ports
    assert COMPOSE["services"]["server"]["ports"] == [f"{ports[0]}:{ports[0]}"]
    assert [str(port["containerPort"]) for port in CONTAINER["ports"]] == ports
    assert POD["metadata"]["annotations"]["prometheus.io/port"] == ports[1]
    (scraped,) = PROMETHEUS["scrape_configs"]
    assert scraped["static_configs"] == [{"targets": [f"server:{ports[1]}"]}]
    (port,) = OBJECTS["Service", "pqjax"]["spec"]["ports"]
    assert str(port["port"]) == ports[0] and port["targetPort"] == CONTAINER["ports"][0]["name"]


def test_compose_names_what_it_has():
    services, volumes = COMPOSE["services"], COMPOSE["volumes"]

    assert set(services) == {"server", "client", "prometheus"}
    build = services["server"]["build"]
    assert (FOLDER / build["context"] / build["dockerfile"]).resolve() == FOLDER / "Containerfile"
    for service in services.values():
        assert set(service.get("depends_on", ())) <= set(services)
        assert isinstance(service["image"], str)
        for volume in service["volumes"]:
            source = re.sub(r"\$\{\w+:-(.*?)\}", r"\1", volume).split(":")[0]
            assert source in volumes or source.startswith("."), volume
    assert services["client"]["command"][1] == "server:7700"
    assert (FOLDER / services["prometheus"]["volumes"][0].split(":")[0]).is_file()


def test_kubernetes_objects_fit_together():
    for each in kubernetes():
        assert set(each) == {"apiVersion", "kind", "metadata", "spec"}
    labels, spec = POD["metadata"]["labels"], OBJECTS["Deployment", "pqjax"]["spec"]
    for selector in (
        spec["selector"]["matchLabels"],
        OBJECTS["Service", "pqjax"]["spec"]["selector"],
        OBJECTS["NetworkPolicy", "pqjax"]["spec"]["podSelector"]["matchLabels"],
    ):
        assert selector and selector.items() <= labels.items()
    volumes = {volume["name"]: volume for volume in POD["spec"]["volumes"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in CONTAINER["volumeMounts"]}
    assert set(mounts) == set(volumes)
    claim = volumes["state"]["persistentVolumeClaim"]["claimName"]
    assert ("PersistentVolumeClaim", claim) in OBJECTS
    ports = {port["name"] for port in CONTAINER["ports"]}
    for probe in ("readinessProbe", "startupProbe", "livenessProbe"):
        how = CONTAINER[probe]
        assert (how.get("httpGet") or how["tcpSocket"])["port"] in ports
    assert POD["spec"]["securityContext"]["runAsNonRoot"]
    user = re.search(r"--uid (\d+)", (FOLDER / "Containerfile").read_text())
    assert user and int(user[1]) == POD["spec"]["securityContext"]["runAsUser"]


@pytest.mark.parametrize("where", ["compose server", "kubernetes", "Containerfile"])
def test_a_server_that_is_ended_has_the_time_that_its_sessions_may_take(where):
    drain = parser().parse_args(COMMANDS[where]).drain

    minutes = re.fullmatch(r"(\d+)m", COMPOSE["services"]["server"]["stop_grace_period"])
    assert minutes and int(minutes[1]) * 60 > drain
    assert POD["spec"]["terminationGracePeriodSeconds"] > drain
