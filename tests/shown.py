"""All that a run shows of itself, to be searched for what nobody should see."""

from __future__ import annotations

import base64
import gc
import traceback
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import LogEvent, formatEventAsClassicLogText
from twisted.python.failure import Failure

from tests.wire import soon
from twisted_etcd.errors import TwistedEtcdError
from twisted_etcd.gateway.tokens import Tokens


class Shown:
    """
    What was logged, and what errors and objects say of themselves.

    :ivar texts: one for each event, error and object.
    """

    def __init__(self) -> None:
        self.texts: list[str] = []

    def log(self, event: LogEvent) -> None:
        """An observer of Twisted's log, at every level: the event as it is read, and all that it carries."""
        failure = event.get("log_failure")
        if isinstance(failure, Failure) and failure.value is not None:
            self.error(failure.value)
        self.texts += [formatEventAsClassicLogText(event) or "", *(f"{value!r} {value}" for value in event.values())]

    def object(self, thing: Any) -> None:  # noqa: ANN401 - whatever there is
        """What it says of itself, to people and to rich's consoles and tracebacks."""
        self.texts += [repr(thing), str(thing)]
        if hasattr(type(thing), "__rich_repr__"):
            self.texts.append(repr(thing.__rich_repr__()))

    def error(self, error: BaseException) -> None:
        """What it says, and what every error behind it says, with their tracebacks."""
        for each in _behind(error):
            self.object(each)
            self.texts += [repr(each.args), repr(vars(each)), *traceback.format_exception(each)]
            self.texts += [Failure(each).getTraceback(), Failure(each).getBriefTraceback()]

    async def fails(self, doing: Deferred[Any], kind: type[BaseException] = TwistedEtcdError) -> None:
        """Something fails, and what it fails with is shown."""
        with pytest.raises(kind) as raised:
            await soon(doing)
        self.error(raised.value)

    def with_secret(self, secret: str) -> list[str]:
        """The texts in which it is, in one form or another."""
        forms = {
            secret,
            repr(secret)[1:-1],
            secret.encode().hex(),
            quote(secret),
            # Base64 of a longer text that it is part of looks otherwise for each of three places.
            *(base64.b64encode(b"x" * place + secret.encode()).decode()[4 if place else 0 : -4] for place in range(3)),
        }
        return [text for text in self.texts if any(form in text for form in forms)]


def _behind(error: BaseException, seen: set[int] | None = None) -> Iterator[BaseException]:
    """An error and all that led to it: causes, contexts, and the failures that Twisted's errors carry."""
    seen = set() if seen is None else seen
    if id(error) in seen:
        return
    seen.add(id(error))
    yield error
    carried = [reason.value for reason in getattr(error, "reasons", None) or ()]
    for each in (error.__cause__, error.__context__, *error.args, *carried):
        if isinstance(each, BaseException):
            yield from _behind(each, seen)


def tokens_in_use() -> set[str]:
    """The tokens that the clients of this process keep."""
    kept = {each._token for each in gc.get_objects() if isinstance(each, Tokens)}  # noqa: SLF001 - what is looked for
    return {token for token in kept if token}
