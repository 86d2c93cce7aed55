"""What went wrong on the way to a server, in words for whoever has set up the check."""

from __future__ import annotations

from twisted.internet.error import ConnectionDone
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.python.failure import Failure

from twisted_etcd.gateway.exchange import explain
from twisted_etcd.registry.health.result import shortened

_NO_ANSWER = "the connection was closed without an answer"


def problem(error: Exception) -> str:
    """The reason inside Twisted's wrappings, in one line."""
    reasons = getattr(error, "reasons", None)
    if isinstance(error, Refused):
        return "refused"
    if reasons and reasons[0].check(ConnectionDone):
        return _NO_ANSWER
    words, _ = explain(Failure(error))
    return shortened(words)
