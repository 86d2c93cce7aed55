"""A gateway that does what a test tells it, in place of one that has sockets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from twisted_etcd.client.carriers import Carriers
from twisted_etcd.client.feed import WatchFeed
from twisted_etcd.client.rangereader import RangeReader
from twisted_etcd.client.vigil import Vigil
from twisted_etcd.client.watch import Watch
from twisted_etcd.errors import Unavailable
from twisted_etcd.gateway.checkups import Condition
from twisted_etcd.gateway.endpoints import Endpoint
from twisted_etcd.gateway.endpointset import EndpointSet
from twisted_etcd.gateway.stream import Stream, StreamClosed, StreamLost, StreamReceiver
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.common import Message, ResponseHeader
from twisted_etcd.schema.kv import Event, KeyValue
from twisted_etcd.schema.watch import WatchCreateRequest, WatchRequest, WatchResponse

CLUSTER = 5


def header(revision: int) -> ResponseHeader:
    return ResponseHeader(cluster_id=CLUSTER, member_id=1, revision=revision)


def events(*revisions: int) -> tuple[Event, ...]:
    return tuple(Event(kv=KeyValue(key=b"k", mod_revision=revision)) for revision in revisions)


class ScriptedStream(Stream):
    """
    A stream whose server is the test.

    :ivar sent: what was sent on it, the requests of its opening included.
    :ivar pings: how many pings were.
    """

    def __init__(self, endpoint: Endpoint, receiver: StreamReceiver, sent: list[WatchRequest]) -> None:
        super().__init__(endpoint.authority, receiver)
        self.sent = sent
        self.pings = 0

    # --- for who uses it --------------------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        assert self.is_open
        self.sent.append(msgspec.json.decode(data, type=WatchRequest, strict=False))

    def ping(self) -> None:
        assert self.is_open
        self.pings += 1

    def pause(self) -> None:
        raise NotImplementedError

    def resume(self) -> None:
        raise NotImplementedError

    def _start_closing(self) -> None:
        """The test says when its socket has gone."""

    def _abort(self) -> None:
        """Likewise."""

    # --- for the test -----------------------------------------------------------------------------------------------

    @property
    def created(self) -> list[WatchCreateRequest]:
        return [request.create_request for request in self.sent if request.create_request is not None]

    @property
    def cancelled(self) -> list[int]:
        return [request.cancel_request.watch_id for request in self.sent if request.cancel_request is not None]

    def arrive(self, response: WatchResponse) -> None:
        self.arrive_bytes(msgspec.json.encode({"result": msgspec.to_builtins(response)}))

    def arrive_error(self, code: int, message: str) -> None:
        self.arrive_bytes(msgspec.json.encode({"error": {"grpc_code": code, "message": message}}))

    def arrive_bytes(self, *messages: bytes) -> None:
        """In one read of the socket."""
        self._deliver(messages)

    def confirm(self, watch_id: int = 0, revision: int = 10) -> None:
        self.arrive(WatchResponse(header=header(revision), watch_id=watch_id, created=True))

    def deliver(self, *revisions: int, watch_id: int = 0) -> None:
        self.arrive(WatchResponse(header=header(revisions[-1]), watch_id=watch_id, events=events(*revisions)))

    def confirm_end(self, watch_id: int) -> None:
        self.arrive(WatchResponse(header=header(10), watch_id=watch_id, canceled=True))

    def lose(self) -> None:
        """The server ends it, and its socket goes."""
        self._socket_gone(Failure(StreamLost("the connection was lost")))

    def finish_closing(self) -> None:
        """The socket of a stream that was closed goes."""
        assert self._closing
        self._socket_gone(Failure(StreamClosed()))

    @property
    def closed_from_here(self) -> bool:
        return self._closing


class Opening(NamedTuple):
    """A stream that is asked for."""

    carrier: str
    endpoint: Endpoint
    receiver: StreamReceiver
    deferred: Deferred[ScriptedStream]
    body: list[WatchRequest]

    def succeed(self) -> ScriptedStream:
        stream = ScriptedStream(self.endpoint, self.receiver, list(self.body))
        self.deferred.callback(stream)
        return stream

    def fail(self, error: Exception | None = None) -> None:
        self.deferred.errback(Failure(error or Unavailable("no stream", {str(self.endpoint): "connection refused"})))


class Call(NamedTuple):
    """A request that is under way."""

    requests: Sequence[Message]
    timeout: float | None
    deferred: Deferred[Any]


class ScriptedGateway:
    """
    :ivar openings: the streams that are being opened, oldest first.
    :ivar calls: the requests that are under way, oldest first.
    :ivar renewals: how often a new token was asked for.
    """

    request_timeout = 5.0

    def __init__(self, *hosts: str, user: bool = False) -> None:
        self.openings: list[Opening] = []
        self.calls: list[Call] = []
        self.renewals = 0
        self.random: Callable[[], float] = lambda: 1.0
        #: Who was asked how it is, and where its answer goes.
        self.checkups: list[tuple[Endpoint, Deferred[Condition]]] = []
        self._endpoints = EndpointSet(
            [Endpoint("http", host, 2379) for host in hosts or ("one",)], lambda: 0.0, lambda: 1.0
        )
        self._user = user

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        return self._endpoints.all

    def choose(self) -> Endpoint:
        chosen = self._endpoints.choose()
        assert chosen is not None
        return chosen

    def failed(self, endpoint: Endpoint, why: str) -> None:
        self._endpoints.failed(endpoint, why)

    def checkup(self, endpoint: Endpoint) -> Deferred[Condition]:
        self.checkups.append((endpoint, Deferred()))
        return self.checkups[-1][1]

    @property
    def has_user(self) -> bool:
        return self._user

    def renew_token(self) -> bool:
        self.renewals += self._user
        return self._user

    def open_post_stream(
        self, rpc: object, body: bytes, receiver: StreamReceiver, *, endpoint: Endpoint
    ) -> Deferred[ScriptedStream]:
        assert rpc is rpcs.WATCH
        return self._open("POST", endpoint, receiver, [msgspec.json.decode(body, type=WatchRequest, strict=False)])

    def open_websocket(self, rpc: object, receiver: StreamReceiver, *, endpoint: Endpoint) -> Deferred[ScriptedStream]:
        assert rpc is rpcs.WATCH
        return self._open("WebSocket", endpoint, receiver, [])

    def _open(
        self, carrier: str, endpoint: Endpoint, receiver: StreamReceiver, body: list[WatchRequest]
    ) -> Deferred[ScriptedStream]:
        def given_up(_: object) -> None:
            self.openings.remove(opening)

        opening = Opening(carrier, endpoint, receiver, Deferred(given_up), body)
        self.openings.append(opening)
        return opening.deferred

    def unary(self, rpc: object, request: Message, *, timeout: float | None = None) -> Deferred[Any]:
        return self.batch(rpc, [request], timeout=timeout)

    def batch(self, rpc: object, requests: Sequence[Message], *, timeout: float | None = None) -> Deferred[Any]:
        call = Call(requests, timeout, Deferred(lambda deferred: deferred.errback(CancelledError())))
        self.calls.append(call)
        return call.deferred

    def take(self) -> Opening:
        """The one stream that is being opened."""
        [opening] = self.openings
        self.openings.clear()
        return opening

    def take_call(self) -> Call:
        """The one request that is under way."""
        [call] = self.calls
        self.calls.clear()
        return call


class Scene:
    """Carriers over a scripted gateway, with the time of a ``Clock``."""

    def __init__(self, *hosts: str, own_streams: int, user: bool = False) -> None:
        self.clock = Clock()
        self.gateway = ScriptedGateway(*hosts, user=user)
        self.carriers = Carriers(cast("Any", self.gateway), self.clock, own_streams)

    def watch(
        self,
        key: bytes = b"k",
        *,
        range_end: bytes = b"",
        start_revision: int = 0,
        max_backlog: int = 1000,
        callback: Any = None,  # noqa: ANN401
        resync: bool = False,
    ) -> Watch:
        watch = Watch(repr(key), callback, max_backlog)
        request = WatchCreateRequest(key=key, range_end=range_end, start_revision=start_revision)
        reader = RangeReader(partial(self.gateway.unary, rpcs.RANGE), self.clock, self.gateway.random)
        feed = WatchFeed(self.carriers, reader, request, watch, resync=resync)
        watch.begin(feed)
        feed.begin()
        return watch

    def open_next(self, within: float = 1.0) -> ScriptedStream:
        """The stream that is opened next, open."""
        return self.next_opening(within).succeed()

    def next_opening(self, within: float = 1.0) -> Opening:
        if not self.gateway.openings:
            self.clock.advance(within)
        return self.gateway.take()

    @property
    def waits(self) -> list[float]:
        """The seconds until each of the timers, but for the one that looks after members."""
        calls: Any = self.clock.getDelayedCalls()
        timers = [call for call in calls if not isinstance(getattr(call.func, "__self__", None), Vigil)]
        return [call.getTime() - self.clock.seconds() for call in timers]


def outcome(deferred: Deferred[Any]) -> Any:  # noqa: ANN401
    """What a Deferred fired with, or the error; ``"nothing yet"`` where it did not fire."""
    results: list[Any] = []
    deferred.addBoth(results.append)
    if not results:
        return "nothing yet"
    return results[0].value if isinstance(results[0], Failure) else results[0]


def revisions(watch: Watch) -> list[int]:
    """The revisions of all events that wait in a watch."""
    seen: list[int] = []
    while True:
        waiting = watch.next()
        batch = outcome(waiting)
        if batch == "nothing yet":
            waiting.cancel()
            return seen
        if isinstance(batch, Exception):
            return seen
        seen += [event.kv.mod_revision for event in batch.events]
