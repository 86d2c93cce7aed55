"""The token that stands for a user and password, fetched once for all requests that need it."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from twisted_etcd.errors import EtcdError, InvalidAuthToken, OldAuthRevision, UserEmpty

#: What etcd answers when a token no longer serves, though the user and the password may.
STALE_TOKEN_ERRORS = (InvalidAuthToken, OldAuthRevision, UserEmpty)


def is_stale_token(error: EtcdError) -> bool:
    """Whether a new token may change this answer."""
    return isinstance(error, STALE_TOKEN_ERRORS)


class Tokens:
    """
    One token at a time, fetched when first needed and again after it was refused.

    :param authenticate: asks etcd for a token (``auth/authenticate``). It fires with an empty string where the server
        has authentication off.
    """

    def __init__(self, authenticate: Callable[[], Deferred[str]]) -> None:
        self._authenticate = authenticate
        self._token: str | None = None
        self._waiting: list[Deferred[str]] = []
        self._fetching = False

    def current(self) -> Deferred[str]:
        """The token, from the cache or from etcd; all who wait at a time share one request."""
        if self._token is not None:
            return succeed(self._token)
        deferred: Deferred[str] = Deferred(self._forget)
        self._waiting.append(deferred)
        if not self._fetching:
            self._fetching = True
            self._authenticate().addCallbacks(self._fetched, self._failed)
        return deferred

    def refused(self, token: str) -> None:
        """etcd no longer takes this token; a newer one that is here already stays."""
        if self._token == token:
            self._token = None

    def forget(self) -> None:
        """Whatever token is here no longer serves."""
        self._token = None

    def _forget(self, deferred: Deferred[str]) -> None:
        self._waiting = [waiting for waiting in self._waiting if waiting is not deferred]

    def _settle(self, fire: Callable[[Deferred[str]], None]) -> None:
        self._fetching = False
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            # One that fires can cancel those behind it.
            if not deferred.called:
                fire(deferred)

    def _fetched(self, token: str) -> None:
        self._token = token
        self._settle(lambda deferred: deferred.callback(token))

    def _failed(self, failure: Failure) -> None:
        # A failure for each, since each caller adds its own traceback.
        self._settle(lambda deferred: deferred.errback(Failure(failure.value)))
