"""A fleet on a Ray cluster: put there, and taken away."""

import logging
import time
from typing import Any

from pqjax.errors import InputError, PeerGone, PqjaxError, listed
from pqjax.fleet.deployment import Deployment
from pqjax.fleet.directory import MOST_WAITING, Directory
from pqjax.fleet.door import Door
from pqjax.fleet.ray import DIRECTORY, NAMESPACE, attached, ray
from pqjax.wire.address import parse_address, resolve_guarded

_APP = "pqjax"
_LOOK_S = 0.2
_SPARE_CALLS = 16  # of the directory, beside those of clients that wait
_END_S = 10.0


def deploy(deployment: Deployment, listen: str, cluster: str = "auto") -> str:
    """Starts a fleet; returns the directory's URL once a replica takes clients.

    Args:
      deployment: what to start.
      listen: "host:port" of the directory.
      cluster: Ray's, see `attached`.

    Raises:
      InputError: Ray is not installed, or no node can hold a replica, or a fleet is there already.
      AddressError: the directory is to listen off loopback without TLS.
      PeerGone: there is no cluster.
      PqjaxError: what the first replica says of the models.
    """
    secured = deployment.tls is not None
    resolve_guarded(listen, guarded=secured or deployment.insecure_plaintext)
    deployment.check_files()
    with attached(cluster) as made:
        if _directory(made) is not None:
            raise InputError("a fleet is there already: end it first, with pqjax fleet stop")
        _check_room(made, deployment)
        _check_serve()
        directory = made.remote(Directory).options(
            name=DIRECTORY, namespace=NAMESPACE, lifetime="detached", max_restarts=-1, num_cpus=0,
            max_concurrency=MOST_WAITING + _SPARE_CALLS,
        ).remote(deployment)  # fmt: skip
        try:
            _wait(made, directory)
            _open(deployment, listen)
        except BaseException:
            _end(made, directory)
            raise
    return f"{'https' if secured else 'http'}://{listen}"


def stop(cluster: str = "auto", drain_s: float = 600.0) -> None:
    """Ends the fleet: sessions finish first, for so long at most.

    Raises:
      InputError: there is none.
      PeerGone: there is no cluster.
    """
    with attached(cluster) as made:
        directory = _directory(made)
        if directory is None:
            raise InputError("no fleet is there")
        _end(made, directory, drain_s)


def _directory(made: Any) -> Any:
    try:
        return made.get_actor(DIRECTORY, namespace=NAMESPACE)
    except ValueError:
        return None


def _check_room(made: Any, deployment: Deployment) -> None:
    """Whether a replica fits any node, when that has nothing else to do."""
    nodes = [node["Resources"] for node in made.nodes() if node["Alive"]]
    memory = deployment.memory_bytes or 0
    for node in nodes:
        if node.get("CPU", 0) >= deployment.cores and node.get("memory", 0) >= memory:
            return
    best = max(node.get("CPU", 0) for node in nodes), max(n.get("memory", 0) for n in nodes)
    raise InputError(
        f"no node of the cluster has {deployment.cores} cores and {memory / 1e9:g} GB for a replica: "
        f"the largest have {best[0]:g} cores, and {best[1] / 1e9:.1f} GB"
    )


def _check_serve() -> None:
    """Ray Serve listens where it was told first: what else it serves would keep ours from it."""
    serve = _serve()
    try:
        others = serve.status().applications
    except ray("serve.exceptions").RayServeException:
        return  # it does not run
    if others:
        raise InputError(
            f"Ray Serve serves {listed(others)} on this cluster: a fleet needs one where it does not"
        )


def _wait(made: Any, directory: Any) -> None:
    while True:
        try:
            state = made.get(directory.state.remote())
        except made.exceptions.RayError as error:
            last = str(error).strip().splitlines()[-1]
            raise PeerGone(f"the directory cannot start: {last}") from error
        if state["ready"]:
            return
        if state["failed"]:
            raise PqjaxError(f"a replica cannot serve: {state['failed']}")
        time.sleep(_LOOK_S)


def _serve() -> Any:
    """Ray Serve, which says what is wrong and nothing else."""
    serve = ray("serve")
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    return serve


def _open(deployment: Deployment, listen: str) -> None:
    """Starts the directory's HTTP."""
    serve = _serve()
    host, port = parse_address(listen)
    options: dict[str, Any] = {"host": host, "port": port}
    if deployment.tls is not None:
        options |= {
            "ssl_certfile": str(deployment.tls.certificate), "ssl_keyfile": str(deployment.tls.key)
        }  # fmt: skip
    try:
        serve.start(http_options=options)
        calls = MOST_WAITING + _SPARE_CALLS
        door = serve.deployment(max_ongoing_requests=calls, ray_actor_options={"num_cpus": 0})(Door)
        serve.run(door.bind(), name=_APP, route_prefix="/")
    except (RuntimeError, ValueError, ray().exceptions.RayError) as error:
        raise PeerGone(f"Ray Serve does not listen on {listen}: {error}") from error


def _end(made: Any, directory: Any, drain_s: float = 0.0) -> None:
    serve = _serve()
    try:
        serve.delete(_APP)
        if not serve.status().applications:
            serve.shutdown()
    except (ray("serve.exceptions").RayServeException, made.exceptions.RayError):
        pass  # it was never started
    try:
        made.get(directory.end.remote())
        until = time.monotonic() + drain_s + _END_S
        while made.get(directory.state.remote())["replicas"] and time.monotonic() < until:
            time.sleep(_LOOK_S)
    finally:
        made.kill(directory)
