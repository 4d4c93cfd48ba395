"""`pqjax client` as an application in this process, asked over real HTTP."""

import contextlib
import io

import numpy as np
from over_http import client, listening

import pqjax
from pqjax.web.asking import Asker
from pqjax.web.sidecar import sidecar


@contextlib.contextmanager
def asked(address, most_waiting=16, **options):
    """A client of a server's sidecar."""
    asker = Asker(lambda: pqjax.connect(address, **options), most_waiting)
    try:
        with over_http(asker) as ask:
            yield ask
    finally:
        asker.close()


@contextlib.contextmanager
def over_http(asker):
    with listening(lambda hosts: sidecar(asker, "server", hosts)) as at, client(at) as ask:
        yield ask


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def outputs(answer):
    assert answer.status_code == 200, answer.text
    return np.array([each["output"] for each in answer.json()["answers"]])


def error(answer, status):
    """What a refused request is told."""
    assert answer.status_code == status, answer.text
    told = answer.json()["error"]
    assert told["message"] and told["do"] and told["status"] == status
    return told
