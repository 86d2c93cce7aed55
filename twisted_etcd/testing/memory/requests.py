"""Requests to the gateway, and how each of its paths is answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Protocol

import msgspec

from twisted_etcd.errors import EtcdError, InvalidArgument, Unimplemented
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.common import Message
from twisted_etcd.schema.rpcs import RPC
from twisted_etcd.schema.watch import WatchRequest
from twisted_etcd.testing.memory import jsonform
from twisted_etcd.testing.memory.faults import Plan
from twisted_etcd.testing.memory.gate import Errand, Gate, Guest
from twisted_etcd.testing.memory.membership import CLUSTER_VERSION, VERSION
from twisted_etcd.testing.memory.refusals import as_answer, as_frame, status_of
from twisted_etcd.testing.memory.watches import WatchStream

_PLAIN_TEXT = "text/plain; charset=utf-8"
_OLD_PREFIX, _PREFIX = "/v3beta/", "/v3/"
_BY_PATH = {rpc.path: rpc for rpc in rpcs.ALL}
#: Not strict, because 64-bit numbers may come as strings.
_DECODERS = {rpc: msgspec.json.Decoder(rpc.request, strict=False) for rpc in rpcs.ALL}


@dataclass(frozen=True)
class Asked:
    """
    One HTTP request, or the opening of a WebSocket.

    :ivar headers: by their names in lower case.
    """

    method: str
    path: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


class Outlet(Protocol):
    """Where the answer to one request goes."""

    @property
    def two_way(self) -> bool:
        """Whether more requests can come meanwhile."""

    def answer(self, status: HTTPStatus, body: bytes, kind: str = ...) -> None:
        """The whole answer."""

    def send(self, message: Mapping[str, Any]) -> None:
        """One message of a stream."""

    def end(self) -> None:
        """The end of a stream."""

    def fail(self, status: HTTPStatus, message: Mapping[str, Any]) -> None:
        """The end of a stream with an error."""


class Answering(Protocol):
    """The answer to one request, for as long as it lasts."""

    @property
    def streams(self) -> bool:
        """Whether it is a stream."""

    @property
    def wants_leader(self) -> bool:
        """Whether it is to end where there is no leader."""

    def begin(self, outlet: Outlet) -> None:
        """Answer there."""

    def more(self, message: bytes) -> None:
        """A further message of a stream came."""

    def fail(self, error: EtcdError) -> None:
        """End it with an error."""

    def give_up(self) -> None:
        """Nobody reads the answer any more."""


def answering(gate: Gate, guest: Guest, asked: Asked, *, progress_interval: float, websocket_tokens: bool) -> Answering:
    """
    What answers a request.

    :param progress_interval: seconds after which watches are told how far they are, where they want it.
    :param websocket_tokens: whether a token is read that comes with a WebSocket.
    """
    if asked.method == "GET" and asked.path in {"/version", "/health"}:
        return _Plain(gate, asked.path)
    rpc = _BY_PATH.get(_PREFIX + asked.path.removeprefix(_OLD_PREFIX).removeprefix(_PREFIX))
    if rpc is None:
        return _Refused(HTTPStatus.NOT_FOUND)
    if asked.method != "POST":
        return _Refused(HTTPStatus.METHOD_NOT_ALLOWED)
    token = asked.headers.get("authorization") or asked.headers.get("grpc-metadata-authorization", "")
    if websocket_tokens:
        token = token or asked.headers.get("sec-websocket-protocol", "")
    request = _Call(gate, guest, rpc, token, asked)
    if rpc is rpcs.WATCH:
        return _Watches(request, progress_interval)
    kinds: dict[rpcs.Stream, Callable[[_Call], Answering]] = {
        rpcs.Stream.NONE: _Unary,
        rpcs.Stream.BOTH: _Exchanges,
        rpcs.Stream.ANSWERS: _Observation,
    }
    return kinds[rpc.stream](request)


@dataclass(frozen=True)
class _Call:
    """What all kinds of answers need to know of what was asked."""

    gate: Gate
    guest: Guest
    rpc: RPC[Any, Any]
    token: str = field(repr=False)
    asked: Asked

    def decode(self, text: bytes) -> Message:
        """
        A request.

        :raises EtcdError: where it is none.
        """
        try:
            request: Message = _DECODERS[self.rpc].decode(text or b"{}")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidArgument(InvalidArgument.grpc_code, str(error)) from None
        return request

    def ask(self, request: Message, reply: Callable[[Message | EtcdError], None]) -> Errand:
        return self.gate.ask(self.guest, self.rpc, request, self.token, reply)


class _Short:
    """An answer that is there at once."""

    streams = False
    wants_leader = False

    def more(self, message: bytes) -> None:
        """None can come."""

    def fail(self, error: EtcdError) -> None:
        """It is over already."""

    def give_up(self) -> None:
        """It is over already."""


class _Refused(_Short):
    """What is no call of etcd's."""

    def __init__(self, status: HTTPStatus) -> None:
        self._status = status

    def begin(self, outlet: Outlet) -> None:
        outlet.answer(self._status, f"{self._status.phrase}\n".encode(), _PLAIN_TEXT)


class _Plain(_Short):
    """What etcd says to a GET."""

    def __init__(self, gate: Gate, path: str) -> None:
        self._gate = gate
        self._path = path

    def begin(self, outlet: Outlet) -> None:
        if self._path == "/version":
            said = {"etcdserver": VERSION, "etcdcluster": CLUSTER_VERSION}
            outlet.answer(HTTPStatus.OK, msgspec.json.encode(said))
            return
        self._gate.look()
        leads = self._gate.member.leads
        said = {"health": "true", "reason": ""} if leads else {"health": "false", "reason": "RAFT NO LEADER"}
        outlet.answer(HTTPStatus.OK if leads else HTTPStatus.SERVICE_UNAVAILABLE, msgspec.json.encode(said))


class _Unary:
    """One request, one answer."""

    streams = False
    wants_leader = False

    def __init__(self, call: _Call) -> None:
        self._call = call
        self._errand: Errand | None = None

    def begin(self, outlet: Outlet) -> None:
        def answered(answer: Message | EtcdError) -> None:
            if isinstance(answer, EtcdError):
                outlet.answer(status_of(answer), msgspec.json.encode(as_answer(answer)))
            else:
                outlet.answer(HTTPStatus.OK, jsonform.encode(answer))

        try:
            request = self._call.decode(self._call.asked.body)
        except EtcdError as error:
            answered(error)
            return
        self._errand = self._call.ask(request, answered)

    def more(self, message: bytes) -> None:
        """None can come."""

    def fail(self, error: EtcdError) -> None:
        """It is no stream."""

    def give_up(self) -> None:
        if self._errand is not None:
            self._errand.give_up()


class _Stream:
    """What all streams have."""

    streams = True

    def __init__(self, call: _Call) -> None:
        self._call = call
        self._outlet: Outlet | None = None
        self._errands: set[Errand] = set()

    @property
    def wants_leader(self) -> bool:
        return self._call.asked.headers.get("grpc-metadata-hasleader") == "true" and self._outlet is not None

    def begin(self, outlet: Outlet) -> None:
        self._outlet = outlet
        error = self._call.gate.admit(self._call.guest)
        if error is not None:
            self.fail(error)
            return
        self._started()
        if not outlet.two_way:
            for line in self._call.asked.body.splitlines() or [b""]:
                self.more(line)
            self._all_came()

    def _started(self) -> None:
        """There is somewhere to send to."""

    def _all_came(self) -> None:
        """No more requests can come."""

    def more(self, message: bytes) -> None:
        if self._outlet is None:
            return
        try:
            request = self._call.decode(message)
        except EtcdError as error:
            self.fail(error)
            return
        self._take(request)

    def _take(self, request: Message) -> None:
        raise NotImplementedError

    def _ask(self, request: Message) -> None:
        """Bring one request to the member, and send what it answers."""
        errand: Errand | None = None

        def answered(answer: Message | EtcdError) -> None:
            self._errands.discard(errand)
            if isinstance(answer, EtcdError):
                self.fail(answer)
            else:
                self.send(answer)
                self._answered()

        errand = self._call.ask(request, answered)
        if not errand.over:
            self._errands.add(errand)

    def _answered(self) -> None:
        """One request was."""

    def send(self, answer: Message) -> None:
        if self._outlet is not None:
            self._outlet.send({"result": jsonform.plain(answer)})

    def fail(self, error: EtcdError) -> None:
        outlet, self._outlet = self._outlet, None
        self.give_up()
        if outlet is not None:
            outlet.fail(status_of(error), as_frame(error))

    def give_up(self) -> None:
        self._outlet = None
        errands, self._errands = self._errands, set()
        for errand in errands:
            errand.give_up()


class _Exchanges(_Stream):
    """Many requests, an answer to each."""

    def __init__(self, call: _Call) -> None:
        super().__init__(call)
        self._unanswered = 0
        self._complete = False

    def _take(self, request: Message) -> None:
        self._unanswered += 1
        self._ask(request)

    def _answered(self) -> None:
        self._unanswered -= 1
        self._end_if_over()

    def _all_came(self) -> None:
        self._complete = True
        self._end_if_over()

    def _end_if_over(self) -> None:
        if self._complete and not self._unanswered and self._outlet is not None:
            outlet, self._outlet = self._outlet, None
            outlet.end()


class _Watches(_Stream):
    """A stream of watches."""

    def __init__(self, call: _Call, progress_interval: float) -> None:
        super().__init__(call)
        self._progress_interval = progress_interval
        self._stream: WatchStream | None = None
        self._ticks = False

    def _started(self) -> None:
        self._stream = self._call.gate.member.watch(self._call.token, self.send)

    def _take(self, request: Message) -> None:
        if isinstance(request, WatchRequest):
            creates = request.create_request is not None
            plan = self._call.gate.faults.plan(rpcs.WATCH) if creates else Plan()
            if plan.delay:
                self._call.guest.later(plan.delay, lambda: self._serve(request, plan.error, lost=plan.lost))
            else:
                self._serve(request, plan.error, lost=plan.lost)

    def _serve(self, request: WatchRequest, error: EtcdError | None, *, lost: bool) -> None:
        if error is not None:
            self.fail(error)
        elif lost:
            self._call.guest.cut()
        elif self._stream is not None:
            self._call.gate.look()
            self._stream.take(request)
            self._tick_if_wanted()

    def _tick_if_wanted(self) -> None:
        if self._stream is not None and self._stream.wants_progress and not self._ticks:
            self._ticks = True
            self._call.guest.later(self._progress_interval, self._tick)

    def _tick(self) -> None:
        self._ticks = False
        if self._stream is not None:
            self._stream.tell_progress()
            self._tick_if_wanted()

    def give_up(self) -> None:
        super().give_up()
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()


class _Observation(_Stream):
    """One request, many answers."""

    def __init__(self, call: _Call) -> None:
        super().__init__(call)
        self._end: Callable[[], None] | None = None

    def _take(self, request: Message) -> None:
        if self._call.rpc is not rpcs.OBSERVE:
            words = "the etcd in memory has no database file to copy"
            self.fail(Unimplemented(Unimplemented.grpc_code, words))
            return
        plan = self._call.gate.faults.plan(rpcs.OBSERVE)
        if plan.error is not None:
            self.fail(plan.error)
        elif plan.lost:
            self._call.guest.cut()
        elif plan.delay:
            self._call.guest.later(plan.delay, lambda: self._observe(request))
        else:
            self._observe(request)

    def _observe(self, request: Any) -> None:  # noqa: ANN401 - the decoder of the call has seen to its type
        try:
            self._end = self._call.gate.member.observe(request, self._call.token, self.send)
        except EtcdError as error:
            self.fail(error)

    def give_up(self) -> None:
        super().give_up()
        end, self._end = self._end, None
        if end is not None:
            end()
