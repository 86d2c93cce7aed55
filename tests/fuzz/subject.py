"""The whole client over sockets in memory, with a server that says what it is told to say."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any, NoReturn, cast

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, TextMessage

from tests.fuzz.mutations import BYTES, pieces, spoiled_answer, spoiled_body
from twisted_etcd.client import op
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.errors import NotEtcd, TwistedEtcdError, Unavailable
from twisted_etcd.gateway.tls import TLSSettings
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.common import Message
from twisted_etcd.schema.maintenance import StatusRequest

#: Seconds on the clock of a case, by which a request must have ended.
_TIMEOUT = 0.2
_STEP = 0.05
_STEPS = 60
_WRITES = ("put", "txn", "delete")


class Spoiled(Exception):
    """A case that went otherwise than promised."""


def _spoiled(text: str) -> NoReturn:
    raise Spoiled(text)


class _Wire(StringTransport):
    """One end of a connection in memory."""

    def __init__(self) -> None:
        super().__init__(peerAddress=IPv4Address("TCP", "127.0.0.1", 2379))  # type: ignore[no-untyped-call]
        self.closed = False
        self._source: Any = None

    def registerProducer(self, producer: Any, streaming: bool) -> None:  # noqa: ANN401, FBT001
        self._source = None if streaming else producer
        self.sent()

    def unregisterProducer(self) -> None:
        self._source = None

    def sent(self) -> None:
        """All that was written has left: whoever wants to know is asked for more."""
        if self._source is not None:
            self._source.resumeProducing()

    def abortConnection(self) -> None:
        self.closed = True

    def loseConnection(self) -> None:
        self.closed = True

    @property
    def request(self) -> bytes:
        """What was written on it."""
        return bytes(self.value())  # type: ignore[no-untyped-call]


class _Server:
    """Answers each connection, once a request has come on it."""

    def __init__(self, reactor: MemoryReactorClock, random: Random, answer: Callable[[bytes], list[bytes]]) -> None:
        self._reactor = reactor
        self._random = random
        self._answer = answer
        self._open: list[tuple[Any, _Wire]] = []
        self._answered: set[_Wire] = set()
        self._ends = random.choice((None, ConnectionDone, ConnectionLost))

    @property
    def is_empty(self) -> bool:
        """Whether no connection is open."""
        return not self._open

    def pump(self) -> None:
        """Let all connections come, be answered, and go."""
        while self._reactor.tcpClients:
            _, _, factory, _, _ = self._reactor.tcpClients.pop(0)
            connector: Any = self._reactor.connectors.pop(0)
            if connector.stoppedConnecting:
                continue
            protocol: Any = factory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 2379))
            wire = _Wire()
            self._open.append((protocol, wire))
            protocol.makeConnection(wire)
        for protocol, wire in tuple(self._open):
            if wire not in self._answered and wire.request and not wire.closed:
                self._answered.add(wire)
                wire.sent()
                self._say(protocol, wire)
            if wire.closed:
                self._end(protocol, wire, ConnectionDone)

    def _say(self, protocol: Any, wire: _Wire) -> None:  # noqa: ANN401 - any of Twisted's
        for piece in self._answer(wire.request):
            if wire.closed:
                return
            protocol.dataReceived(piece)
        if self._ends is not None:
            self._end(protocol, wire, self._ends)

    def _end(self, protocol: Any, wire: _Wire, why: type[Exception]) -> None:  # noqa: ANN401 - as above
        if (protocol, wire) in self._open:
            self._open.remove((protocol, wire))
            wire.closed = True
            protocol.connectionLost(Failure(why()))


def _request(kind: str, client: EtcdClient) -> Deferred[Any]:
    calls: dict[str, Callable[[], Deferred[Any]]] = {
        "get": lambda: client.get("k"),
        "put": lambda: client.put("k", "v"),
        "txn": lambda: client.txn(success=[op.put("k", "v")]),
        "delete": lambda: client.delete("k"),
        "lease": lambda: client.lease_grant(60, lease_id=5),
        "status": lambda: client.call(rpcs.STATUS, StatusRequest()),
        "error": lambda: client.get("k", revision=3),
    }
    return calls[kind]()


KINDS = ("get", "put", "txn", "delete", "lease", "status", "error", "watch", "websocket")


class Run:
    """
    Many cases.

    :ivar outcomes: how often each kind ended how.
    """

    def __init__(self) -> None:
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self._logged: list[str] = []

    def __enter__(self) -> Run:
        globalLogPublisher.addObserver(cast("ILogObserver", self._log))
        return self

    def __exit__(self, *_: object) -> None:
        globalLogPublisher.removeObserver(cast("ILogObserver", self._log))

    def _log(self, event: LogEvent) -> None:
        if event["log_level"] in (LogLevel.error, LogLevel.critical):
            failure = event.get("log_failure")
            self._logged.append((formatEvent(event) or "") + (failure.getTraceback() if failure else ""))

    def case(self, seed: str) -> None:
        """
        One case, made of its seed alone.

        :raises Spoiled: it did not end as promised.
        """
        random = Random(seed)
        kind = random.choice(KINDS)
        reactor = MemoryReactorClock()
        client = EtcdClient(
            reactor,
            "http://127.0.0.1",
            # The system's authorities are not read for each case.
            tls=TLSSettings(insecure=True),
            request_timeout=_TIMEOUT,
            connect_timeout=_TIMEOUT,
            stop_timeout=_TIMEOUT,
            own_streams=0 if kind == "websocket" else 16,
            random=random.random,
        )
        answers: list[str] = []

        def answer(request: bytes) -> list[bytes]:
            how, data = _websocket(random, request) if b"Upgrade" in request else spoiled_answer(random, _line(kind))
            answers.append(how)
            return pieces(random, data)

        server = _Server(reactor, random, answer)
        outcome = (
            self._watch(client, reactor, server) if _line(kind) == "watch" else self._ask(kind, client, reactor, server)
        )
        self.outcomes[kind, outcome] += 1
        self._stop(kind, client, reactor, server)
        if self._logged:
            texts, self._logged = self._logged, []
            _spoiled(f"{kind} ({', '.join(answers[:3])}) logged: {texts[0]}")

    def _ask(self, kind: str, client: EtcdClient, reactor: MemoryReactorClock, server: _Server) -> str:
        results: list[Any] = []
        _request(kind, client).addBoth(results.append)
        self._until(lambda: bool(results), reactor, server, f"{kind} is not answered")
        (result,) = results
        if not isinstance(result, Failure):
            if not isinstance(result, Message):
                _spoiled(f"{kind} gave {result!r}")
            return type(result).__name__
        if not isinstance(result.value, TwistedEtcdError):
            _spoiled(f"{kind} failed with {result.getTraceback()}")
        if kind in _WRITES and isinstance(result.value, Unavailable) and not isinstance(result.value, NotEtcd):
            _spoiled(f"{kind} was sent, and counts as not applied: {result.value}")
        return type(result.value).__name__

    def _watch(self, client: EtcdClient, reactor: MemoryReactorClock, server: _Server) -> str:
        watch = client.watch("k", start_revision=5)
        ended: list[Any] = []
        watch.ended.addBoth(ended.append)
        seen = 0

        def take(batch: Any) -> None:  # noqa: ANN401 - a batch
            nonlocal seen
            if seen >= batch.revision:
                _spoiled(f"the watch delivered {batch.revision} after {seen}")
            seen = batch.revision
            watch.next().addCallbacks(take, lambda failure: failure.trap(TwistedEtcdError) and None)

        watch.next().addCallbacks(take, lambda failure: failure.trap(TwistedEtcdError) and None)
        for _ in range(8):
            server.pump()
            reactor.advance(_STEP)
        if ended and not isinstance(ended[0], Failure):
            _spoiled(f"the watch ended with {ended[0]!r}")
        if ended and not isinstance(ended[0].value, TwistedEtcdError):
            _spoiled(f"the watch ended with {ended[0].getTraceback()}")
        return type(ended[0].value).__name__ if ended else "delivered" if seen else "goes on"

    def _stop(self, kind: str, client: EtcdClient, reactor: MemoryReactorClock, server: _Server) -> None:
        stopped: list[Any] = []
        client.stopService().addBoth(stopped.append)
        self._until(lambda: bool(stopped), reactor, server, "the client does not stop")
        if stopped != [None]:
            _spoiled(f"the client stopped with {stopped[0]!r}")
        server.pump()
        left = [str(call) for call in reactor.getDelayedCalls()]
        if client.connection_count or left or not server.is_empty:
            _spoiled(f"after {kind} the client left {client.connection_count} connections and {left}")

    @staticmethod
    def _until(done: Callable[[], bool], reactor: MemoryReactorClock, server: _Server, otherwise: str) -> None:
        for _ in range(_STEPS):
            server.pump()
            if done():
                return
            reactor.advance(_STEP)
        _spoiled(otherwise)


def _line(kind: str) -> str:
    return "watch" if kind == "websocket" else kind


def _websocket(random: Random, request: bytes) -> tuple[str, bytes]:
    """The opening of a WebSocket and its messages, spoiled somewhere."""
    server = WSConnection(ConnectionType.SERVER)
    server.receive_data(request)
    opening = b""
    for _ in server.events():
        opening = server.send(AcceptConnection())
    how, body = spoiled_body(random, "watch")
    frames = [server.send(TextMessage(data=line.decode("utf-8", "replace"))) for line in body.split(b"\n", 20)]
    data = opening + b"".join(frames)
    if random.random() < 0.5:
        name = random.choice(list(BYTES))
        return f"{how}, then {name}", BYTES[name](random, data)
    return how, data


def collected() -> int:
    """How many objects there are, garbage aside."""
    gc.collect()
    return len(gc.get_objects())
