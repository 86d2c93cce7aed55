"""One token for all who need one."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError, Deferred

from twisted_etcd.errors import AuthenticationFailed, PermissionDenied, etcd_error
from twisted_etcd.gateway.tokens import Tokens, is_stale_token


class Authentication:
    """Requests for a token that the test answers."""

    def __init__(self) -> None:
        self.requests: list[Deferred[str]] = []

    def __call__(self) -> Deferred[str]:
        self.requests.append(Deferred())
        return self.requests[-1]


def results(*deferreds: Deferred[str]) -> list[object]:
    found: list[object] = []
    for deferred in deferreds:
        deferred.addBoth(found.append)
    return found


def test_those_who_wait_at_a_time_share_one_request() -> None:
    authentication = Authentication()
    tokens = Tokens(authentication)
    found = results(tokens.current(), tokens.current(), tokens.current())
    assert len(authentication.requests) == 1
    assert found == []
    authentication.requests[0].callback("one")
    assert found == ["one", "one", "one"]


def test_a_token_is_kept_until_it_is_refused() -> None:
    authentication = Authentication()
    tokens = Tokens(authentication)
    found = results(tokens.current())
    authentication.requests[0].callback("one")
    found += results(tokens.current())
    tokens.refused("one")
    again = results(tokens.current(), tokens.current())
    authentication.requests[1].callback("two")
    assert (found, again) == (["one", "one"], ["two", "two"])
    assert len(authentication.requests) == 2


def test_the_refusal_of_an_old_token_does_not_cost_the_new_one() -> None:
    authentication = Authentication()
    tokens = Tokens(authentication)
    results(tokens.current())
    authentication.requests[0].callback("one")
    tokens.refused("one")
    results(tokens.current())
    authentication.requests[1].callback("two")
    tokens.refused("one")
    assert results(tokens.current()) == ["two"]


def test_a_refusal_while_a_new_token_is_fetched_fetches_no_third() -> None:
    authentication = Authentication()
    tokens = Tokens(authentication)
    results(tokens.current())
    authentication.requests[0].callback("one")
    tokens.refused("one")
    found = results(tokens.current())
    tokens.refused("one")
    found += results(tokens.current())
    assert len(authentication.requests) == 2
    authentication.requests[1].callback("two")
    assert found == ["two"]


def test_an_empty_token_of_a_server_without_authentication_is_kept_too() -> None:
    authentication = Authentication()
    tokens = Tokens(authentication)
    found = results(tokens.current())
    authentication.requests[0].callback("")
    found += results(tokens.current())
    assert found == ["", ""]
    assert len(authentication.requests) == 1


def test_forgetting_fetches_a_new_one_whatever_the_old_one_was() -> None:
    authentication = Authentication()
    tokens = Tokens(authentication)
    results(tokens.current())
    authentication.requests[0].callback("one")
    tokens.forget()
    found = results(tokens.current())
    authentication.requests[1].callback("two")
    assert found == ["two"]


def test_a_failure_reaches_all_who_wait_and_the_next_one_asks_again() -> None:
    authentication = Authentication()
    tokens = Tokens(authentication)
    waiting = [tokens.current(), tokens.current()]
    authentication.requests[0].errback(AuthenticationFailed(3, "wrong"))
    failures = [getattr(found, "value", None) for found in results(*waiting)]
    assert [type(failure) for failure in failures] == [AuthenticationFailed, AuthenticationFailed]
    found = results(tokens.current())
    authentication.requests[1].callback("one")
    assert found == ["one"]


def test_one_who_no_longer_waits_takes_nothing_from_the_others() -> None:
    authentication = Authentication()
    tokens = Tokens(authentication)
    impatient, patient = tokens.current(), tokens.current()
    impatient.cancel()
    (cancelled,) = results(impatient)
    assert getattr(cancelled, "value", None).__class__ is CancelledError
    authentication.requests[0].callback("one")
    assert results(patient) == ["one"]


def test_one_who_is_cancelled_by_another_ones_result_is_left_alone() -> None:
    authentication = Authentication()
    tokens = Tokens(authentication)
    first, second = tokens.current(), tokens.current()
    first.addCallback(lambda _token: second.cancel())
    authentication.requests[0].callback("one")
    (left,) = results(second)
    assert getattr(left, "value", None).__class__ is CancelledError


@pytest.mark.parametrize(
    ("code", "message", "stale"),
    [
        (16, "etcdserver: invalid auth token", True),
        (3, "etcdserver: revision of auth store is old", True),
        (3, "etcdserver: user name is empty", True),
        (7, "etcdserver: permission denied", False),
        (3, "etcdserver: authentication failed, invalid user ID or password", False),
    ],
)
def test_a_new_token_is_fetched_only_for_what_it_can_mend(*, code: int, message: str, stale: bool) -> None:
    assert is_stale_token(etcd_error(code, message)) is stale


def test_permission_is_not_a_matter_of_the_token() -> None:
    assert not is_stale_token(PermissionDenied(7, "permission denied"))
