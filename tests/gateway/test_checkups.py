"""How members are, by their own account, with the time in the test's hand."""

from __future__ import annotations

from typing import Any, cast

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from tests.gateway.servers import HEADER, JSON
from twisted_etcd.errors import NotEtcd, TLSFailed
from twisted_etcd.gateway.checkups import Checkups, Condition
from twisted_etcd.gateway.endpoints import Endpoint
from twisted_etcd.gateway.endpointset import EndpointSet, EndpointState
from twisted_etcd.gateway.exchange import ExchangeFailed, Obstacle, Reach, Reply

A, B = (Endpoint("http", host, 2379) for host in "ab")
TIMEOUT = 1.5
WELL = Condition(version="3.5.1", member_id=2)


def status(rest: str = ',"leader":"2"') -> Reply:
    body = "{" + HEADER + ',"version":"3.5.1"' + rest + "}"
    return reply(200, body.encode())


def reply(code: int, body: bytes, content_type: str = JSON) -> Reply:
    return Reply(status=code, content_type=content_type, server="", body=body, whole=True)


class Scene:
    """Checkups of two endpoints, whose questions the test answers."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.posted: list[tuple[Endpoint, str, bytes, Deferred[Reply]]] = []
        self.endpoints = EndpointSet((A, B), self.clock.seconds, lambda: 1.0)
        self.checkups = Checkups(self._post, self.endpoints, cast("Any", self.clock), TIMEOUT)

    def _post(self, endpoint: Endpoint, path: str, body: bytes) -> Deferred[Reply]:
        # As the exchange does it when it is cancelled.
        posting: Deferred[Reply] = Deferred(lambda d: d.errback(ExchangeFailed("cancelled", Reach.MAYBE_SENT)))
        self.posted.append((endpoint, path, body, posting))
        return posting

    def ask(self, endpoint: Endpoint = A) -> list[Any]:
        """What comes of asking, once something has come."""
        found: list[Any] = []
        self.checkups.of(endpoint).addBoth(found.append)
        return found

    def answer(self, answer: Reply) -> None:
        self.posted[-1][3].callback(answer)

    def breaks(self, why: str, obstacle: Obstacle | None = None) -> None:
        self.posted[-1][3].errback(ExchangeFailed(why, Reach.NOT_SENT, obstacle))

    def state(self, endpoint: Endpoint = A) -> tuple[EndpointState, str]:
        [found] = (each for each in self.endpoints.statuses() if each.url == str(endpoint))
        return found.state, found.why


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_member_with_a_leader_is_well(scene: Scene) -> None:
    found = scene.ask()
    [(endpoint, path, body, _)] = scene.posted
    assert (endpoint, path, body) == (A, "/v3/maintenance/status", b"{}")
    scene.answer(status())
    assert found == [WELL]
    assert scene.state() == (EndpointState.SERVING, "")
    assert scene.clock.getDelayedCalls() == []


def test_one_that_failed_serves_again_once_it_is_found_well(scene: Scene) -> None:
    scene.endpoints.failed(A, "refused")
    scene.ask()
    scene.answer(status())
    assert scene.state() == (EndpointState.SERVING, "")


@pytest.mark.parametrize(
    ("rest", "why"),
    [
        ("", "it has no leader"),
        (',"leader":"2","isLearner":true', "it is a learner, which serves nobody"),
    ],
)
def test_a_member_that_can_serve_nobody_is_told(scene: Scene, rest: str, why: str) -> None:
    found = scene.ask()
    scene.answer(status(rest))
    assert found == [Condition(trouble=why, version="3.5.1", member_id=2)]
    assert scene.state() == (EndpointState.FAILING, why)


def test_all_who_ask_at_a_time_share_one_question_and_each_member_has_its_own(scene: Scene) -> None:
    first, second, other = scene.ask(), scene.ask(), scene.ask(B)
    assert [endpoint for endpoint, *_ in scene.posted] == [A, B]
    scene.posted[0][3].callback(status())
    assert (first, second, other) == ([WELL], [WELL], [])
    third = scene.ask()
    assert len(scene.posted) == 3
    scene.answer(status())
    assert third == [WELL]
    scene.posted[1][3].callback(status())
    assert other == [WELL]


def test_one_who_no_longer_waits_leaves_the_question_to_the_others(scene: Scene) -> None:
    asking = scene.checkups.of(A)
    found = scene.ask()
    asking.cancel()
    asking.addErrback(lambda failure: failure.trap(CancelledError))
    scene.answer(status())
    assert found == [WELL]


def test_one_that_says_nothing_in_time_hangs(scene: Scene) -> None:
    found = scene.ask()
    scene.clock.advance(TIMEOUT - 0.01)
    assert found == []
    scene.clock.advance(0.02)
    why = "it did not answer within 1.5 s how it is"
    assert found == [Condition(trouble=why)]
    assert scene.state() == (EndpointState.FAILING, why)
    assert scene.posted[0][3].called
    assert scene.clock.getDelayedCalls() == []


def test_one_that_cannot_be_reached_says_why_and_may_be_back_later(scene: Scene) -> None:
    found = scene.ask()
    scene.breaks("Connection was refused")
    assert found == [Condition(trouble="Connection was refused")]


@pytest.mark.parametrize("obstacle", [NotEtcd, TLSFailed])
def test_where_no_http_or_no_tls_comes_about_there_is_a_stranger(scene: Scene, obstacle: Obstacle) -> None:
    found = scene.ask()
    scene.breaks("what came is not HTTP", obstacle)
    assert found == [Condition(trouble="what came is not HTTP", stranger=True)]


def test_another_service_is_a_stranger(scene: Scene) -> None:
    found = scene.ask()
    scene.answer(reply(200, b'{"status":"ok"}'))
    [condition] = found
    assert condition.stranger
    assert "which is not etcd's v3 gateway" in condition.trouble
    assert scene.state() == (EndpointState.FAILING, condition.trouble)


def test_a_proxy_before_a_member_that_is_away_is_no_stranger(scene: Scene) -> None:
    found = scene.ask()
    scene.answer(reply(502, b"<html>Bad Gateway</html>", "text/html"))
    assert found == [Condition(trouble="answered 502 without saying why")]


def test_one_that_wants_a_token_for_it_lives(scene: Scene) -> None:
    found = scene.ask()
    scene.answer(reply(401, b'{"code":16,"message":"etcdserver: invalid auth token"}'))
    assert found == [Condition()]
    assert scene.state() == (EndpointState.SERVING, "")


def test_one_that_is_stopping_is_in_trouble(scene: Scene) -> None:
    found = scene.ask()
    scene.answer(reply(503, b'{"code":14,"message":"etcdserver: server stopped"}'))
    [condition] = found
    assert "server stopped" in condition.trouble
    assert scene.state()[0] is EndpointState.FAILING


def test_a_member_that_was_removed_meanwhile_is_nobodys_concern(scene: Scene) -> None:
    found = scene.ask()
    scene.endpoints.replace((B,))
    scene.answer(status(""))
    assert found[0].trouble == "it has no leader"
    assert scene.endpoints.all == (B,)


def test_stopping_ends_the_questions_and_blames_nobody(scene: Scene) -> None:
    found = [scene.ask(), scene.ask(B)]
    scene.checkups.stop()
    found.append(scene.ask())
    assert found == [[Condition(trouble="the client was stopped")]] * 3
    assert len(scene.posted) == 2
    assert scene.state() == (EndpointState.UNTRIED, "")
    assert scene.clock.getDelayedCalls() == []


def test_what_nobody_expected_goes_to_those_who_asked(scene: Scene) -> None:
    found = scene.ask()
    scene.posted[0][3].errback(ZeroDivisionError("no"))
    [failure] = found
    failure.trap(ZeroDivisionError)
    scene.ask()
    assert len(scene.posted) == 2
    scene.answer(status())
