"""
What carries watches: a POST stream for one, or one WebSocket for many.

A client's first watches get streams of their own, which every etcd cleans up at once when they end; further ones share
a WebSocket. Where a WebSocket is refused, by a proxy or by an etcd that reads no token from it, POST streams go on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Protocol

from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from twisted_etcd.client.bookmarks import Bookmarks, is_progress_of_all
from twisted_etcd.client.joining import WatchFrame, joined
from twisted_etcd.client.line import Line, LineState
from twisted_etcd.client.position import Interrupted, Over, after_stream_error
from twisted_etcd.client.vigil import Vigil
from twisted_etcd.errors import AuthenticationFailed, EtcdError, NotEtcd, PermissionDenied, Unavailable
from twisted_etcd.gateway.checkups import Condition
from twisted_etcd.gateway.endpoints import Endpoint
from twisted_etcd.gateway.gateway import Gateway
from twisted_etcd.gateway.poststream import PostStream
from twisted_etcd.gateway.stream import StreamReceiver
from twisted_etcd.gateway.tokens import STALE_TOKEN_ERRORS
from twisted_etcd.gateway.websocket import WebSocket
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.watch import (
    WatchCancelRequest,
    WatchCreateRequest,
    WatchProgressRequest,
    WatchRequest,
    WatchResponse,
)

#: Watches of a client that get streams of their own, unless told otherwise.
OWN_STREAMS = 16
#: Seconds that a stream may be silent while the creation or the cancellation of a watch is unanswered; later it counts
#: as dead.
ANSWER_TIMEOUT = 3.0


class Fed(Protocol):
    """A watch as its carrier sees it."""

    @property
    def confirmed(self) -> bool:
        """Whether etcd has ever created it."""

    def request(self, watch_id: int) -> WatchCreateRequest:
        """What etcd is asked for now."""

    def carried_by(self, carrier: Carrier) -> None:
        """From now on its answers come from there."""

    def received(self, response: WatchResponse) -> Interrupted | Over | None:
        """Take an answer; what it gives back ended the watch, on this stream or for good."""

    def broke(self) -> None:
        """The stream is gone; the next answer comes from another."""

    def over(self, error: Exception) -> None:
        """Nothing more will come."""


class Carrier(Protocol):
    """Brings a watch its answers until it is removed."""

    def remove(self, watch: Fed) -> Deferred[None]:
        """The watch is wanted no longer; fires when etcd was told so, or cannot be told."""


class WebSocketRefused(Exception):
    """The server, or something before it, serves no watches over a WebSocket."""


def _is_final(error: Exception) -> bool:
    """Whether the next stream would be answered the same."""
    return isinstance(error, EtcdError) and isinstance(after_stream_error(error), Over)


def _encode(request: WatchRequest) -> bytes:
    return rpcs.WATCH.encode(request)


class OwnStream(Line[PostStream, WatchFrame]):
    """One watch on a POST stream."""

    # etcd 3.5.1 says of a watch whose token it does not know that it has no permission.
    _doubtful = (PermissionDenied,)

    def __init__(self, gateway: Gateway, clock: IReactorTime, vigil: Vigil, carriers: Carriers, watch: Fed) -> None:
        super().__init__(gateway, clock, vigil)
        self._carriers = carriers
        self._watch = watch

    def remove(self, watch: Fed) -> Deferred[None]:  # noqa: ARG002
        """See :meth:`Carrier.remove`."""
        self._carriers.released(self)
        return self.close()

    def _open_stream(self, endpoint: Endpoint, receiver: StreamReceiver) -> Deferred[PostStream]:
        body = _encode(WatchRequest(create_request=self._watch.request(0)))
        return self._gateway.open_post_stream(rpcs.WATCH, body, receiver, endpoint=endpoint)

    def _opened(self, stream: PostStream) -> None:
        """The watch is confirmed by a message of its own."""

    def _member_is_well(self, condition: Condition) -> None:
        """Nothing can be asked on a stream whose request has ended."""

    def _dropped(self, closing: Deferred[None]) -> None:
        self._carriers.until(closing)

    def _read(self, messages: Iterable[bytes]) -> Iterator[WatchFrame]:
        return joined(messages)

    def _received(self, frame: WatchFrame) -> None:
        error = frame.failure()
        if error is not None:
            self._drop(error)
        elif frame.result is not None:
            step = self._watch.received(frame.result)
            if step is None:
                self._confirmed()
            elif isinstance(step, Interrupted) or self._renews(step.error):
                self._drop(step.error)
            else:
                self._end(step.error)

    def _interrupted(self, error: Exception) -> None:
        self._watch.broke()
        if _is_final(error):
            if not self._renews(error):
                self._end(error)
        elif self._is_hopeless and not self._watch.confirmed:
            # It never worked: more likely a wrong address or certificate than an outage.
            self._end(error)

    def _end(self, error: Exception) -> None:
        self._carriers.released(self)
        self._carriers.until(self.close())
        self._watch.over(error)


class SharedStream(Line[WebSocket, WatchFrame]):
    """Many watches on one WebSocket."""

    def __init__(self, gateway: Gateway, clock: IReactorTime, vigil: Vigil, carriers: Carriers) -> None:
        super().__init__(gateway, clock, vigil)
        self._carriers = carriers
        self._watches: dict[int, Fed] = {}
        self._ids: dict[Fed, int] = {}
        self._next_id = 1
        #: Created and not yet confirmed: etcd confirms them in this order.
        self._creating: deque[int] = deque()
        self._cancelling: dict[int, Deferred[None]] = {}
        #: Runs while something is not yet confirmed.
        self._answer_timer: IDelayedCall | None = None
        self._bookmarks = Bookmarks()
        #: Whether etcd has created a watch on a WebSocket, and so believes what it says of its user.
        self._believed = False
        #: Whether it has on this one: its authentication may have been switched on meanwhile.
        self._believed_here = False

    # --- watches come and go ----------------------------------------------------------------------------------------

    def add(self, watch: Fed) -> None:
        """Carry this watch too."""
        watch_id = self._next_id
        self._next_id += 1
        self._watches[watch_id] = watch
        self._ids[watch] = watch_id
        self.open()
        if self.state is LineState.OPEN and self._stream is not None:
            self._create(self._stream, watch_id)

    def _create(self, stream: WebSocket, watch_id: int) -> None:
        self._creating.append(watch_id)
        stream.send(_encode(WatchRequest(create_request=self._watches[watch_id].request(watch_id))))
        self._expect_answers()

    def remove(self, watch: Fed) -> Deferred[None]:
        """See :meth:`Carrier.remove`."""
        watch_id = self._forget(watch)
        if self._stream is None:
            self._close_if_idle()
            return succeed(None)
        deferred: Deferred[None] = Deferred()
        self._cancelling[watch_id] = deferred
        self._stream.send(_encode(WatchRequest(cancel_request=WatchCancelRequest(watch_id=watch_id))))
        self._expect_answers()
        return deferred

    def _forget(self, watch: Fed) -> int:
        watch_id = self._ids.pop(watch)
        del self._watches[watch_id]
        return watch_id

    def take(self) -> Fed | None:
        """
        Carry one less; None where there is none left.

        One at a time, since what is done with one of them can stop others.
        """
        watch = next(iter(self._ids), None)
        if watch is not None:
            self._forget(watch)
        return watch

    def close(self) -> Deferred[None]:
        """Want it no longer; fires when its socket has gone."""
        self._settle()
        return super().close()

    def _close_if_idle(self) -> None:
        if not self._watches and not self._cancelling:
            self._carriers.idle(self)

    # --- what is not yet confirmed ----------------------------------------------------------------------------------

    def _expect_answers(self) -> None:
        """The next answer is due from now on, where one is due at all."""
        timer = self._answer_timer
        if not self._creating and not self._cancelling:
            self._answer_timer = None
            if timer is not None:
                timer.cancel()
        elif timer is None:
            self._answer_timer = self._clock.callLater(ANSWER_TIMEOUT, self._unanswered)
        else:
            timer.reset(ANSWER_TIMEOUT)

    def _unanswered(self) -> None:
        self._answer_timer = None
        why = f"etcd confirmed neither the beginning nor the end of a watch within {ANSWER_TIMEOUT:g} s"
        # Some etcds wait for ever for a token that they do not know, on a WebSocket.
        self._drop(WebSocketRefused(why) if self._gateway.has_user and not self._believed else Unavailable(why))

    def _cancelled(self, watch_id: int) -> None:
        deferred = self._cancelling.pop(watch_id, None)
        if deferred is None:
            return
        self._expect_answers()
        self._close_if_idle()
        deferred.callback(None)

    def _settle(self) -> None:
        """The stream is gone, and with it what was not yet confirmed on it."""
        self._creating.clear()
        self._bookmarks.answered()
        cancelling, self._cancelling = self._cancelling, {}
        self._expect_answers()
        for deferred in cancelling.values():
            deferred.callback(None)

    # --- the stream -------------------------------------------------------------------------------------------------

    def _open_stream(self, endpoint: Endpoint, receiver: StreamReceiver) -> Deferred[WebSocket]:
        if not self._wary:
            return self._gateway.open_websocket(rpcs.WATCH, receiver, endpoint=endpoint)
        # On a WebSocket etcd confirms watches without having a leader, and then nothing comes.
        checkup = self._gateway.checkup(endpoint)
        opening: Deferred[WebSocket] = checkup.addCallback(self._open_where_well, endpoint, receiver)
        return opening

    def _open_where_well(
        self, condition: Condition, endpoint: Endpoint, receiver: StreamReceiver
    ) -> Deferred[WebSocket]:
        if condition.trouble:
            msg = "a stream is opened once its member is well"
            raise Unavailable(msg, {str(endpoint): condition.trouble})
        return self._gateway.open_websocket(rpcs.WATCH, receiver, endpoint=endpoint)

    def _dropped(self, closing: Deferred[None]) -> None:
        self._carriers.until(closing)

    def _opened(self, stream: WebSocket) -> None:
        self._believed_here = False
        for watch_id in tuple(self._watches):
            self._create(stream, watch_id)

    def _member_is_well(self, condition: Condition) -> None:
        if self._stream is None:
            return
        self._stream.ping()
        now = self._clock.seconds()
        if self._bookmarks.due(condition, now):
            unconfirmed = set(self._creating)
            self._bookmarks.asked(now, [each for each in self._watches if each not in unconfirmed])
            self._stream.send(_encode(WatchRequest(progress_request=WatchProgressRequest())))

    def _interrupted(self, error: Exception) -> None:
        self._settle()
        # Who hears of it can stop this one and others.
        for watch in tuple(self._ids):
            watch.broke()
        if self._is_refusal(error):
            self._carriers.websocket_refused(self, f"{self._endpoint}: {error}")
        elif self._ends_all(error):
            while (taken := self.take()) is not None:
                taken.over(error)
        if not self._watches:
            self._carriers.idle(self)

    def _is_refusal(self, error: Exception) -> bool:
        """Whether POST streams may do where the WebSocket did not."""
        if self._believed or isinstance(error, AuthenticationFailed):
            return False
        return isinstance(error, NotEtcd | WebSocketRefused) or _is_final(error)

    def _ends_all(self, error: Exception) -> bool:
        if _is_final(error):
            return not self._renews(error)
        return self._is_hopeless and not any(watch.confirmed for watch in self._ids)

    def _read(self, messages: Iterable[bytes]) -> Iterator[WatchFrame]:
        return joined(messages)

    def _received(self, frame: WatchFrame) -> None:
        error = frame.failure()
        if error is not None:
            self._drop(error)
        elif frame.result is not None:
            # Whatever it says: an etcd that has much to send may be long in coming to its answers.
            self._expect_answers()
            self._answered(frame.result)

    def _answered(self, response: WatchResponse) -> None:
        self._bookmarks.member_id = response.header.member_id
        watch_id = response.watch_id
        if is_progress_of_all(response):
            for each in self._bookmarks.answered():
                self._answered_to(each, response)
            return
        if response.created and self._creating:
            # A refused one comes without its id, but in its turn.
            watch_id = self._creating.popleft()
            self._expect_answers()
        self._answered_to(watch_id, response)

    def _answered_to(self, watch_id: int, response: WatchResponse) -> None:
        watch = self._watches.get(watch_id)
        if watch is None:
            if response.canceled:
                self._cancelled(watch_id)
            return
        step = watch.received(response)
        if step is None:
            if response.created:
                self._believed = self._believed_here = True
                self._confirmed()
            return
        # An etcd that reads no token from a WebSocket says that it does not know the user.
        doubtful = not self._believed_here and isinstance(step.error, (PermissionDenied, *STALE_TOKEN_ERRORS))
        if doubtful and not self._believed:
            self._drop(WebSocketRefused(f"no token is read from a WebSocket ({step.error.args[-1]})"))
        elif isinstance(step, Interrupted) or self._renews(step.error):
            self._drop(step.error)
        else:
            self._forget(watch)
            if doubtful:
                self._carriers.carry_alone(watch)
            else:
                watch.over(step.error)
            self._close_if_idle()


class Carriers:
    """
    Gives each watch its carrier.

    :param own_streams: how many watches get streams of their own before the others share one.
    """

    _log = Logger()

    def __init__(self, gateway: Gateway, clock: IReactorTime, own_streams: int) -> None:
        self._gateway = gateway
        self._clock = clock
        self._vigil = Vigil(gateway, clock)
        self._limit = own_streams
        self._own: set[OwnStream] = set()
        self._shared: SharedStream | None = None
        self._websockets = True
        self._closing: set[Deferred[None]] = set()

    def carry(self, watch: Fed) -> None:
        """From now on this watch gets its answers."""
        if len(self._own) < self._limit or not self._websockets:
            self.carry_alone(watch)
            return
        if self._shared is None:
            self._shared = SharedStream(self._gateway, self._clock, self._vigil, self)
        watch.carried_by(self._shared)
        self._shared.add(watch)

    def carry_alone(self, watch: Fed) -> None:
        """From now on this watch gets its answers on a stream of its own."""
        own = OwnStream(self._gateway, self._clock, self._vigil, self, watch)
        self._own.add(own)
        watch.carried_by(own)
        own.open()

    def released(self, own: OwnStream) -> None:
        """The stream carries no watch any longer."""
        self._own.discard(own)

    def idle(self, shared: SharedStream) -> None:
        """The stream carries no watch any longer; the next ones get another."""
        if self._shared is shared:
            self._shared = None
        self.until(shared.close())

    def websocket_refused(self, shared: SharedStream, why: str) -> None:
        """Carry all that was to share a WebSocket on POST streams, from now on."""
        if self._websockets:
            self._websockets = False
            self._log.warn("etcd's WebSocket is refused, so each watch has a connection of its own: {why}", why=why)
        while (watch := shared.take()) is not None:
            self.carry(watch)

    def until(self, closing: Deferred[None]) -> None:
        """:meth:`stop` waits for this as well."""
        self._closing.add(closing)
        closing.addBoth(lambda _: self._closing.discard(closing))

    def stop(self) -> Deferred[None]:
        """Fires when the streams of all watches that were removed are closed."""
        return Deferred.fromCoroutine(self._all_closed())

    async def _all_closed(self) -> None:
        while self._closing:
            # Closing one can make another idle.
            await DeferredList(list(self._closing))
