"""The token that stands for a user and password, fetched once for all requests that need it."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from twisted_etcd.errors import EtcdError, InvalidAuthToken, OldAuthRevision, UserEmpty
from twisted_etcd.moment import Moment

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
        #: There while a token is being fetched.
        self._fetching: Moment[str] | None = None

    def current(self) -> Deferred[str]:
        """The token, from the cache or from etcd; all who wait at a time share one request."""
        if self._token is not None:
            return succeed(self._token)
        if self._fetching is not None:
            return self._fetching.wait()
        fetching = self._fetching = Moment[str]()
        self._authenticate().addCallbacks(
            self._fetched, self._failed, callbackArgs=(fetching,), errbackArgs=(fetching,)
        )
        return fetching.wait()

    def refused(self, token: str) -> None:
        """etcd no longer takes this token; a newer one that is here already stays."""
        if self._token == token:
            self._token = None

    def forget(self) -> None:
        """Whatever token is here no longer serves."""
        self._token = None

    def _fetched(self, token: str, fetching: Moment[str]) -> None:
        self._token = token
        self._fetching = None
        fetching.fire(token)

    def _failed(self, failure: Failure, fetching: Moment[str]) -> None:
        self._fetching = None
        fetching.fail(failure)
