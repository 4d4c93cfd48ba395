"""What a server tells of, as lines on standard error."""

from typing import Any

from pqjax.cli.console import Refusals, log
from pqjax.errors import WireError


class Lines:
    """Says records (`pqjax.service.records`) in words."""

    def __init__(self) -> None:
        self._refusals = Refusals()

    def record(self, told: dict[str, Any]) -> None:
        """Says one."""
        client = told.get("client", "")
        match told["event"]:
            case "began":
                log("session began", client)
            case "ended":
                log(f"session ended: {_end(told)}", client)
            case "refused":
                self._refusals(client, WireError(told["error"]["text"]))
            case "noted":
                log(told["text"], client)
            case "stopping":
                log(
                    "stopping: nobody is let in any more; waiting for sessions at work: "
                    f"{len(told['sessions'])}, for {told['drain_s']:g} s at most; Ctrl-C again ends "
                    "them at once"
                )
                for session in told["sessions"]:
                    log(f"at work: {session['doing']}", session["client"])
            case "reloaded":
                log("the models were read anew")
            case "reload_failed":
                log(
                    f"the models there were are served on; reading them anew failed: {told['text']}"
                )
            case "worker_died":
                log(
                    f"worker {told['worker']} died (code {told['code']}) with {told['sessions']} "
                    "sessions; another takes its place"
                )
            case "worker_failed":
                log(f"worker {told['worker']} talks nonsense and is ended: {told['error']}")


def _end(told: dict[str, Any]) -> str:
    if told["error"] is not None:
        return told["error"]["text"]
    sent, received = told["sent_bytes"], told["received_bytes"]
    return f"{told['answers']} inferences, {sent} bytes out, {received} in"
