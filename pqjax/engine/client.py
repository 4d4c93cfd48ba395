"""How a client comes to a session with a server."""

import contextlib
import pathlib

from pqjax.engine.commands import MOST_PREPARED
from pqjax.engine.execute import Preparation, Progress
from pqjax.engine.memory import check_memory
from pqjax.engine.session import Session, word_for
from pqjax.engine.spending import Note, Shelf, begin, spend_at_client
from pqjax.engine.store import Store
from pqjax.errors import (
    DeadlineExceeded,
    HandshakeError,
    InputError,
    PeerGone,
    PqjaxError,
    Refused,
    SessionEnded,
)
from pqjax.planner.document import read_plan
from pqjax.planner.plan import Plan
from pqjax.wire.channel import DEADLINE_S
from pqjax.wire.handshake import greet_server, hang_up
from pqjax.wire.interface import Wire
from pqjax.wire.tcp import dial
from pqjax.wire.tls import Tls
from pqjax.wire.word import Word


def connect(
    address: str,
    *,
    plan: Plan | None = None,
    model: str | None = None,
    ticket: bytes = b"",
    background: bool = False,
    tls: Tls | None = None,
    insecure_plaintext: bool = False,
    deadline_s: float = DEADLINE_S,
    patience_s: float = 0.0,
    name: str | None = None,
    hints: pathlib.Path | str | None = None,
    hint_file: pathlib.Path | str | None = None,
    store: Shelf | pathlib.Path | str | None = None,
    spend: int = 0,
    ahead: int = 0,
    note: Note = lambda text: None,
    progress: Progress | None = None,
) -> "Session":
    """Connects to a server and sets up oblivious transfer.

    Raises:
      AddressError: the address cannot be read or resolved, or is off loopback without TLS.
      PeerGone: nobody listens there, or who does closed the connection.
      DeadlineExceeded: who listens there says nothing.
      Refused: the server does not take this client: it is busy, has no such model, ...
      HandshakeError: it is no pqjax server, or has another version or plan.
      SessionEnded: the server ended the session and said why.
      CheckpointError: the file of hints is damaged, or of another model or version of it.
      StoreError: the folder of stored preparations cannot be used.

    Args:
      address: "host:port".
      plan: insist on this plan; without one the server's is taken over (it is public).
      model: NAME or NAME@VERSION, of a server with several; without one it is the first of this
        `plan`, or of all.
      ticket: what a directory of servers gave this client, to be shown once.
      background: give way to other clients: the server takes this one where it has nobody to serve, and
        ends the session (SessionEnded, "yield") between two commands when somebody comes.
      tls: this side's certificates; needed off loopback.
      insecure_plaintext: do without TLS off loopback, on purpose.
      deadline_s: a wait for the server in which nothing moves for this long fails, and so do
        connecting and checking the plan. Between two calls nobody waits; how long that may be is
        the server's to say (`Server`, idle_s).
      patience_s: keep dialling for so long while nobody listens.
      name: whom the server's certificate has to name, where that is not the host dialled (a relay).
      hints: a folder in which to keep what a model's clients get once; without one it is asked for in
        every session that needs it.
      hint_file: such a file (`pqjax hint`), which came in another way.
      store: a folder of preparations that `Session.keep` put there, in any session with this address; or
        that and another name for the server than the address.
      spend: as many of them as so many inputs take, if there are, are this session's first ones; those
        that are not used then are lost.
      ahead: while nobody calls, the session prepares until so many inferences are in store (`Session`).
        Each costs what `Session.prepare` does, whether it is used in the end or not: so none is made
        unless asked for. Of a plan that is `streamed` they have all but the random OTs.
      note: told of stored preparations that cannot be spent, and why.
      progress: told of every layer; of those that are prepared ahead in a thread of the session's.
    """
    for what, n in ("stored preparations may be spent", spend), ("may be prepared ahead", ahead):
        if not 0 <= n <= MOST_PREPARED:
            raise InputError(f"0 to {MOST_PREPARED} {what}, got {n}")
    server = address if model is None else f"{address}/{model}"
    shelf = store if store is None or isinstance(store, Shelf) else Shelf(Store(store), server)
    wire = dial(
        address,
        tls=tls,
        insecure_plaintext=insecure_plaintext,
        deadline_s=deadline_s,
        patience_s=patience_s,
        name=name,
    )
    try:
        with shelf.store.locked() if shelf and spend else contextlib.nullcontext():
            batches = shelf.store.batches(shelf.server) if shelf and spend else []
            digest = plan.digest if plan else None
            document = _greet(wire, address, digest, bool(batches), model, ticket, background)
            if plan is None:
                assert document is not None
                plan = read_plan(document, deadline_s)
            check_memory(plan)
            spent: list[Preparation] = []
            if shelf and batches:
                spent = spend_at_client(
                    wire, plan, shelf.store, batches, -(-spend // plan.batch), note
                )
        party, _ = begin(wire, 1, plan, spent)
        return Session(party, plan, progress, hints, hint_file, shelf, spent, ahead)
    except BaseException as error:
        refused = isinstance(error, PqjaxError) and plan is None
        hang_up(wire, Word.REFUSED if refused else word_for(error))
        raise


_PERHAPS = "perhaps another program listens there, or a server with TLS (then give certificates)"


def _greet(
    wire: Wire,
    address: str,
    digest: bytes | None,
    offers: bool,
    model: str | None,
    ticket: bytes,
    background: bool,
) -> bytes | None:
    """Greets; what goes wrong names the address, and what may be there."""
    try:
        return greet_server(wire, digest, offers, model, ticket, background)
    except Refused as error:
        raise Refused(f"{address}: {error}", error.reason) from error
    except SessionEnded as error:
        raise SessionEnded(f"{address}: {error}", error.reason) from error
    except DeadlineExceeded as error:
        took = f"{address} took the connection and then said too little"
        raise DeadlineExceeded(f"{took} ({error}): {_PERHAPS}") from error
    except PeerGone as error:
        took = f"{address} took the connection and then closed it"
        raise PeerGone(f"{took} ({error}): it is closing or full, or {_PERHAPS}") from error
    except HandshakeError as error:
        raise HandshakeError(f"{address}: {error}") from error
