"""Answers as treq takes them, and their bodies on the way to whoever wants them."""

from __future__ import annotations

from typing import Any, cast

import pytest
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseFailed
from twisted.web.http_headers import Headers
from twisted.web.iweb import IClientRequest, IResponse
from zope.interface.verify import verifyObject

from twisted_etcd.gateway.httpreader import Head
from twisted_etcd.gateway.httpresponse import Body, Response, SentRequest

END = Failure(Exception("the end"))


class Source:
    """Where a body comes from, and what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def pause(self) -> None:
        self.told.append("pause")

    def resume(self) -> None:
        self.told.append("resume")

    def abort(self) -> None:
        self.told.append("abort")

    def delivered(self) -> None:
        self.told.append("delivered")


class Taker(Protocol):
    """Gets a body, and tells its source's list of it, so that the order can be seen."""

    def __init__(self, told: list[str]) -> None:
        self.data = b""
        self.told = told
        self.end: Failure | None = None

    @property
    def body(self) -> Body:
        return cast("Body", self.transport)

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        self.told.append(data.decode())

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        assert self.end is None
        self.end = reason
        self.told.append("lost")


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def body(source: Source) -> Body:
    return Body(source)


@pytest.fixture
def taker(source: Source) -> Taker:
    return Taker(source.told)


def response_with(body: Body) -> Response:
    head = Head((b"HTTP", 1, 1), 200, b"OK", Headers({"A": ["1"]}), 2, open_ended=False)
    return Response(head, SentRequest(b"POST", b"http://h/", None), body)


def test_a_response_is_all_that_twisted_promises_of_one(body: Body) -> None:
    response = response_with(body)
    verifyObject(IResponse, response)
    verifyObject(IClientRequest, response.request)
    verifyObject(IPushProducer, body)
    assert (response.version, response.code, response.phrase, response.length) == ((b"HTTP", 1, 1), 200, b"OK", 2)
    assert response.headers.getRawHeaders("a") == ["1"]
    assert (response.request.method, response.request.absoluteURI) == (b"POST", b"http://h/")
    assert list(response.request.headers.getAllRawHeaders()) == []
    assert response.previousResponse is None
    before: Any = response_with(body)
    response.setPreviousResponse(before)
    assert response.previousResponse is before


def test_what_came_early_is_handed_over_first_and_then_what_comes(body: Body, taker: Taker) -> None:
    body.add(b"a")
    body.add(b"b")
    assert not body.wanted
    response_with(body).deliverBody(cast("Any", taker))
    assert body.wanted
    body.add(b"c")
    body.end(END)
    assert taker.told == ["ab", "resume", "c", "delivered", "lost"]
    assert taker.end is END


def test_a_body_that_has_ended_before_it_was_wanted_is_handed_over_whole(body: Body, taker: Taker) -> None:
    body.add(b"a")
    body.end(END)
    assert taker.told == []
    body.deliver_to(cast("Any", taker))
    assert taker.told == ["a", "delivered", "lost"]


def test_an_empty_body_ends_and_gives_nothing(body: Body, taker: Taker) -> None:
    body.end(END)
    body.deliver_to(cast("Any", taker))
    assert taker.told == ["delivered", "lost"]


def test_only_the_first_end_counts(body: Body, taker: Taker) -> None:
    body.end(END)
    body.end(Failure(Exception("another")))
    body.deliver_to(cast("Any", taker))
    body.end(Failure(Exception("another")))
    assert taker.end is END


@pytest.mark.parametrize("ended", [False, True])
def test_a_body_is_delivered_once(*, body: Body, taker: Taker, ended: bool) -> None:
    body.deliver_to(cast("Any", taker))
    if ended:
        body.end(END)
    with pytest.raises(RuntimeError, match="delivered once"):
        body.deliver_to(cast("Any", taker))


def test_who_takes_it_can_pause_and_go_on(body: Body, taker: Taker) -> None:
    body.deliver_to(cast("Any", taker))
    taker.body.pauseProducing()
    taker.body.resumeProducing()
    assert taker.told == ["resume", "pause", "resume"]


def test_who_pauses_at_once_is_not_overruled(source: Source, body: Body) -> None:
    class Pauses(Taker):
        def connectionMade(self) -> None:
            self.body.pauseProducing()

    body.deliver_to(cast("Any", Pauses(source.told)))
    assert source.told == ["pause"]


@pytest.mark.parametrize("how", ["loseConnection", "abortConnection", "stopProducing"])
def test_who_takes_it_can_close_the_connection_until_the_end_has_been_told(
    source: Source, body: Body, taker: Taker, how: str
) -> None:
    body.deliver_to(cast("Any", taker))
    transport = taker.body
    getattr(transport, how)()
    assert source.told == ["resume", "abort"]
    assert transport.disconnecting
    body.end(END)
    assert taker.end is END
    # The connection may be another request's by now.
    for each in (how, "pauseProducing", "resumeProducing"):
        getattr(transport, each)()
    assert source.told == ["resume", "abort", "delivered", "lost"]


def test_a_body_that_is_too_much_can_be_refused_though_it_came_whole(source: Source, body: Body) -> None:
    class Refuses(Taker):
        def dataReceived(self, data: bytes) -> None:
            self.body.loseConnection()

    body.add(b"far too much")
    body.end(END)
    body.deliver_to(cast("Any", Refuses(source.told)))
    assert source.told == ["abort", "delivered", "lost"]


@pytest.mark.parametrize("early", [False, True])
def test_who_fails_to_take_it_is_told_so_and_the_connection_is_closed(
    *, source: Source, body: Body, early: bool
) -> None:
    class Fails(Taker):
        def dataReceived(self, data: bytes) -> None:
            msg = "a mistake"
            raise LookupError(msg)

    taker = Fails(source.told)
    if early:
        body.add(b"a")
        body.end(END)
    body.deliver_to(cast("Any", taker))
    body.add(b"b")
    body.add(b"c")
    body.end(END)
    assert [each for each in source.told if each != "resume"] == ["abort", "delivered", "lost"]
    assert taker.end is not None
    assert isinstance(taker.end.value, ResponseFailed)
    assert taker.end.value.reasons[0].check(LookupError)
