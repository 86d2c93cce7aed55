"""Streams over WebSocket: with a real etcd, through the fault proxy, and with servers that misbehave."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import struct
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_twisted
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from wsproto import ConnectionType
from wsproto.connection import Connection, ConnectionState
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, Pong, TextMessage

from tests.etcds import FreshEtcd
from tests.gateway.streams import (
    CLOCK,
    Recorder,
    create_request,
    endpoint_of,
    put,
    put_all,
    secure_endpoint,
    secure_etcd,
    until_watchers,
    watchers,
)
from tests.guards import LoggedErrors
from tests.wire import ClockedReactor, Listener, Peer, soon
from twisted_etcd.embedded.process import EmbeddedEtcd
from twisted_etcd.gateway.stream import (
    MAX_MESSAGE,
    MAX_REFUSAL,
    MessageTooLong,
    StreamClosed,
    StreamLost,
    StreamMalformed,
    StreamReceiver,
    StreamRefused,
    StreamTimeout,
)
from twisted_etcd.gateway.websocket import WebSocket, open_websocket
from twisted_etcd.testing.proxy import FaultProxy

MESSAGES = ['{"result":{"created":true}}', '{"result":{"events":[1,2]}}', '{"error":{"code":14}}']
# As etcd makes them: the number is a raft index, and older servers wait for one that is yet to come.
TOKEN = "kEvGfPzIfDhPcBqK.1"
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class WebSocketPeer(Peer):
    """A server's side that has read the opening handshake and then says what the test wants."""

    def __init__(self) -> None:
        super().__init__()
        self._frames = Connection(ConnectionType.SERVER)

    @property
    def head(self) -> bytes:
        return bytes(self.data).partition(b"\r\n\r\n")[0]

    def answer(self, *headers: bytes) -> bytes:
        """The answer that agrees to the handshake."""
        found = re.search(rb"(?im)^sec-websocket-key: (\S+)\r$", self.head + b"\r\n")
        assert found is not None
        accept = base64.b64encode(hashlib.sha1(found[1] + GUID).digest())  # noqa: S324 RFC 6455 has it so
        lines = [
            b"HTTP/1.1 101 Switching Protocols",
            b"Upgrade: websocket",
            b"Connection: Upgrade",
            b"Sec-WebSocket-Accept: " + accept,
            *headers,
        ]
        return b"\r\n".join(lines) + b"\r\n\r\n"

    async def until_asked(self) -> None:
        await self.until_received(b"\r\n\r\n")

    async def agree(self, *headers: bytes) -> None:
        await self.until_asked()
        self.socket.write(self.answer(*headers))

    def say(self, *events: Event) -> None:
        self.socket.write(frames(self._frames, *events))

    async def until_told(self, count: int) -> list[Event]:
        """So many events of the client, after its handshake."""
        await self.until(lambda: len(self.told) >= count)
        return self.told

    @property
    def told(self) -> list[Event]:
        reading = Connection(ConnectionType.SERVER)
        reading.receive_data(bytes(self.data).partition(b"\r\n\r\n")[2])
        return list(reading.events())


def frames(connection: Connection, *events: Event) -> bytes:
    return b"".join(bytes(connection.send(event)) for event in events)


def open_at(
    listener: Listener,
    receiver: StreamReceiver,
    *,
    clock: IReactorTime = CLOCK,
    subprotocols: Sequence[str] = (),
    max_message: int = MAX_MESSAGE,
) -> Deferred[WebSocket]:
    return open_websocket(
        listener.endpoint,
        host=listener.authority,
        path="/v3/watch",
        receiver=receiver,
        clock=clock,
        handshake_timeout=30,
        subprotocols=subprotocols,
        max_message=max_message,
    )


def open_to(url: str, receiver: StreamReceiver, subprotocols: Sequence[str] = ()) -> Deferred[WebSocket]:
    host = url.partition("://")[2]
    return soon(
        open_websocket(
            endpoint_of(url),
            host=host,
            path="/v3/watch",
            receiver=receiver,
            clock=CLOCK,
            handshake_timeout=10,
            subprotocols=subprotocols,
        )
    )


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = Listener(WebSocketPeer)
    yield listener
    pytest_twisted.blockon(Deferred.fromCoroutine(cast("Any", listener.close())))


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


async def peer_of(listener: Listener, number: int = 0) -> WebSocketPeer:
    return cast("WebSocketPeer", await listener.peer(number))


async def opened(
    listener: Listener, receiver: StreamReceiver, *, clock: IReactorTime = CLOCK, max_message: int = MAX_MESSAGE
) -> tuple[WebSocket, WebSocketPeer]:
    """An open WebSocket, and the server's side of it."""
    number = len(listener.peers)
    opening = open_at(listener, receiver, clock=clock, max_message=max_message)
    peer = await peer_of(listener, number)
    await peer.agree()
    return await soon(opening), peer


# --- with etcd ------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_one_connection_creates_watches_reports_progress_and_cancels(
    etcd_server: EmbeddedEtcd, prefix: str, recorder: Recorder
) -> None:
    stream = await open_to(etcd_server.endpoint, recorder)
    assert f"http://{stream.endpoint}" == etcd_server.endpoint
    stream.send(create_request(prefix + "a", watch_id=7))
    stream.send(create_request(prefix + "b", watch_id=8))
    await recorder.until(2)
    assert [(result["created"], result["watch_id"]) for result in recorder.results] == [(True, "7"), (True, "8")]
    await put(etcd_server, prefix + "b", "two")
    await put(etcd_server, prefix + "a", "one")
    assert await recorder.until_events(2) == [(8, b"two"), (7, b"one")]
    stream.send(b'{"progress_request":{}}')
    await recorder.until(5)
    assert recorder.results[-1]["watch_id"] == "-1"
    for watch_id in (7, 8):
        stream.send(b'{"cancel_request":{"watch_id":%d}}' % watch_id)
    await recorder.until(7)
    assert [result["canceled"] for result in recorder.results[-2:]] == [True, True]
    await soon(stream.close())
    assert isinstance(recorder.end, StreamClosed)


@pytest_twisted.ensureDeferred
async def test_a_thousand_watches_share_one_connection(
    etcd_server: EmbeddedEtcd, prefix: str, recorder: Recorder
) -> None:
    before = await watchers(etcd_server)
    stream = await open_to(etcd_server.endpoint, recorder)
    keys = [f"{prefix}{number}" for number in range(1000)]
    for number, key in enumerate(keys, 1):
        stream.send(create_request(key, watch_id=number))
    await recorder.until(1000)
    await put_all(etcd_server, keys, "value")
    assert sorted(await recorder.until_events(1000)) == [(number, b"value") for number in range(1, 1001)]
    for number in range(1, 1001):
        stream.send(b'{"cancel_request":{"watch_id":%d}}' % number)
    await until_watchers(etcd_server, before)
    await soon(stream.close())


@pytest_twisted.ensureDeferred
async def test_events_of_several_megabytes_arrive_whole(
    etcd_server: EmbeddedEtcd, prefix: str, recorder: Recorder
) -> None:
    first = await put(etcd_server, prefix, "")
    values = [letter * 1_400_000 for letter in "abcde"]
    for value in values:
        await put(etcd_server, prefix, value)
    stream = await open_to(etcd_server.endpoint, recorder)
    stream.send(create_request(prefix, start_revision=first + 1))
    assert await recorder.until_events(len(values)) == [(0, value.encode()) for value in values]
    assert max(len(message) for message in recorder.messages) > 5_000_000
    await soon(stream.close())


@pytest_twisted.ensureDeferred
async def test_a_lease_is_kept_alive(etcd_server: EmbeddedEtcd, recorder: Recorder) -> None:
    host = etcd_server.endpoint.partition("://")[2]
    opening = open_websocket(
        endpoint_of(etcd_server.endpoint),
        host=host,
        path="/v3/lease/keepalive",
        receiver=recorder,
        clock=CLOCK,
        handshake_timeout=10,
    )
    stream = await soon(opening)
    stream.send(b'{"ID":12345}')
    await recorder.until(1)
    # A lease that does not exist is answered without a TTL.
    assert recorder.results[0]["ID"] == "12345"
    assert "TTL" not in recorder.results[0]
    await soon(stream.close())


@pytest_twisted.ensureDeferred
async def test_a_token_is_offered_as_a_subprotocol_and_shown_nowhere(
    etcd_server: EmbeddedEtcd, prefix: str, recorder: Recorder
) -> None:
    stream = await open_to(etcd_server.endpoint, recorder, subprotocols=("Bearer", TOKEN))
    stream.send(create_request(prefix))
    await recorder.until(1)
    assert TOKEN not in repr(stream)
    await soon(stream.close())
    assert TOKEN not in str(recorder.ends)


@pytest_twisted.ensureDeferred
async def test_a_path_that_etcd_does_not_have_is_refused(etcd_server: EmbeddedEtcd, recorder: Recorder) -> None:
    opening = open_websocket(
        endpoint_of(etcd_server.endpoint),
        host="127.0.0.1",
        path="/nowhere",
        receiver=recorder,
        clock=CLOCK,
        handshake_timeout=10,
    )
    with pytest.raises(StreamRefused) as caught:
        await soon(opening)
    assert caught.value.status == 404
    assert b"not found" in caught.value.body


@pytest_twisted.ensureDeferred
async def test_a_server_that_stops_ends_the_stream(fresh_etcd: FreshEtcd, recorder: Recorder) -> None:
    etcd = await fresh_etcd()
    stream = await open_to(etcd.endpoint, recorder)
    stream.send(create_request("key"))
    await recorder.until(1)
    await etcd.stopService()
    assert isinstance(await recorder.until_ended(), StreamLost)
    with pytest.raises(StreamLost):
        stream.send(b"{}")
    await soon(stream.close())


@pytest_twisted.ensureDeferred
async def test_a_server_that_hangs_is_aborted_after_the_close_timeout(
    fresh_etcd: FreshEtcd, recorder: Recorder
) -> None:
    etcd = await fresh_etcd()
    clock = ClockedReactor()
    opening = open_websocket(
        endpoint_of(etcd.endpoint),
        host="127.0.0.1",
        path="/v3/watch",
        receiver=recorder,
        clock=clock,
        handshake_timeout=10,
        close_timeout=3,
    )
    stream = await soon(opening)
    etcd.kill("STOP")
    try:
        closing = stream.close()
        await clock.until_waiting()
        assert not closing.called
        clock.advance(3)
        await soon(closing)
        assert isinstance(recorder.end, StreamClosed)
    finally:
        etcd.kill("CONT")


@pytest_twisted.ensureDeferred
async def test_a_stream_over_tls_opens_carries_and_closes(
    fresh_etcd: FreshEtcd, tmp_path: Path, recorder: Recorder
) -> None:
    authority = trustme.CA()
    etcd = await secure_etcd(fresh_etcd, tmp_path, authority)
    opening = open_websocket(
        secure_endpoint(etcd, authority),
        host="localhost",
        path="/v3/watch",
        receiver=recorder,
        clock=CLOCK,
        handshake_timeout=10,
    )
    stream = await soon(opening)
    stream.send(create_request("key"))
    await recorder.until(1)
    stream.pause()
    await soon(stream.close())
    assert isinstance(recorder.end, StreamClosed)


@pytest.mark.parametrize("wrong", ["authority", "name"])
@pytest_twisted.ensureDeferred
async def test_a_certificate_that_is_not_believed_fails_with_the_tls_error(
    fresh_etcd: FreshEtcd, tmp_path: Path, recorder: Recorder, wrong: str
) -> None:
    authority = trustme.CA()
    etcd = await secure_etcd(fresh_etcd, tmp_path, authority)
    if wrong == "name":
        endpoint = secure_endpoint(etcd, authority, "other.example")
    else:
        endpoint = secure_endpoint(etcd, trustme.CA())
    with pytest.raises((SSL.Error, VerificationError)):
        await soon(
            open_websocket(
                endpoint, host="localhost", path="/v3/watch", receiver=recorder, clock=CLOCK, handshake_timeout=10
            )
        )


# --- through a proxy with faults ------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_cut_at_any_byte_of_etcds_answers_it_fails_or_ends_once(etcd_server: EmbeddedEtcd, prefix: str) -> None:
    port = int(etcd_server.endpoint.rpartition(":")[2])
    proxy = FaultProxy(CLOCK, "127.0.0.1", port)
    proxy.startService()
    whole = Recorder()
    stream = await open_to(proxy.endpoint, whole)
    stream.send(create_request(prefix))
    await whole.until(1)
    await soon(stream.close())
    length = proxy.answers - 4
    opened_at = []
    for count in range(length):
        proxy.cut_after(count)
        recorder = Recorder()
        try:
            stream = await open_to(proxy.endpoint, recorder)
        except StreamLost:
            assert recorder.ends == []
            continue
        opened_at.append(count)
        if stream.is_open:
            stream.send(create_request(prefix))
        assert isinstance(await recorder.until_ended(), StreamLost)
        assert recorder.messages == []
        await soon(stream.close())
    assert opened_at == list(range(opened_at[0], length))
    await soon(proxy.stopService())


@pytest_twisted.ensureDeferred
async def test_a_connection_that_is_reset_ends_the_stream(etcd_server: EmbeddedEtcd, recorder: Recorder) -> None:
    proxy = FaultProxy(CLOCK, "127.0.0.1", int(etcd_server.endpoint.rpartition(":")[2]))
    proxy.startService()
    stream = await open_to(proxy.endpoint, recorder)
    proxy.reset()
    end = await recorder.until_ended()
    assert isinstance(end, StreamLost)
    assert str(end).startswith("the connection was lost")
    await soon(stream.close())
    await soon(proxy.stopService())


# --- opening --------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_the_handshake_names_the_host_the_path_the_subprotocols_and_the_headers(
    listener: Listener, recorder: Recorder
) -> None:
    opening = open_websocket(
        listener.endpoint,
        host="etcd.example:2379",
        path="/v3/watch",
        receiver=recorder,
        clock=CLOCK,
        handshake_timeout=30,
        subprotocols=("Bearer", TOKEN),
        headers={"Origin": "http://here"},
    )
    peer = await peer_of(listener)
    await peer.agree(b"Sec-WebSocket-Protocol: Bearer")
    head = peer.head.split(b"\r\n")
    assert head[0] == b"GET /v3/watch HTTP/1.1"
    lines = {line.lower() for line in head[1:]}
    assert {
        b"host: etcd.example:2379",
        b"sec-websocket-protocol: bearer, " + TOKEN.lower().encode(),
        b"origin: http://here",
        b"sec-websocket-version: 13",
    } <= lines
    stream = await soon(opening)
    assert stream.endpoint == "etcd.example:2379"
    await peer.end()
    await recorder.until_ended()
    await soon(stream.close())


@pytest_twisted.ensureDeferred
async def test_whoever_asked_has_the_stream_before_its_first_message(listener: Listener) -> None:
    order: list[str] = []

    class Receiver(Recorder):
        def message_received(self, data: bytes) -> None:
            order.append("message")
            super().message_received(data)

        def stream_ended(self, reason: Failure) -> None:
            order.append("end")
            super().stream_ended(reason)

    def note(stream: WebSocket) -> WebSocket:
        order.append("open")
        return stream

    receiver = Receiver()
    opening = open_at(listener, receiver).addCallback(note)
    peer = await peer_of(listener)
    await peer.until_asked()
    all_at_once = frames(Connection(ConnectionType.SERVER), TextMessage(MESSAGES[0]), CloseConnection(1001, "bye"))
    peer.socket.write(peer.answer() + all_at_once)
    stream = await soon(opening)
    await receiver.until_ended()
    assert order == ["open", "message", "end"]
    await soon(stream.close())


@pytest_twisted.ensureDeferred
async def test_a_refused_connection_fails_as_such(listener: Listener, recorder: Recorder) -> None:
    await listener.close()
    with pytest.raises(ConnectError):
        await soon(open_at(listener, recorder))


@pytest_twisted.ensureDeferred
async def test_a_handshake_that_does_not_end_in_time_fails_and_closes_the_connection(
    listener: Listener, recorder: Recorder
) -> None:
    clock = ClockedReactor()
    opening = open_at(listener, recorder, clock=clock)
    peer = await peer_of(listener)
    await peer.until_asked()
    clock.advance(31)
    with pytest.raises(StreamTimeout, match="within 30 seconds"):
        await soon(opening)
    await peer.until_lost()
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 101", b"HTTP/1.1 403 No\r\nContent-Length: 9\r\n\r\nhalf"])
@pytest_twisted.ensureDeferred
async def test_cancelling_the_opening_closes_the_connection(
    listener: Listener, recorder: Recorder, sent: bytes
) -> None:
    opening = open_at(listener, recorder)
    peer = await peer_of(listener)
    await peer.until_asked()
    peer.socket.write(sent)
    opening.cancel()
    with pytest.raises(CancelledError):
        await soon(opening)
    await peer.until_lost()
    assert recorder.ends == []


@pytest_twisted.ensureDeferred
async def test_cancelling_before_there_is_a_connection_leaves_nothing(listener: Listener, recorder: Recorder) -> None:
    opening = open_at(listener, recorder)
    opening.cancel()
    with pytest.raises(CancelledError):
        await soon(opening)


@pytest_twisted.ensureDeferred
async def test_a_refusal_is_told_with_its_status_and_its_body(listener: Listener, recorder: Recorder) -> None:
    opening = open_at(listener, recorder)
    peer = await peer_of(listener)
    await peer.until_asked()
    peer.socket.write(b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/html\r\nContent-Length: 15\r\n\r\n<html>no</html>")
    with pytest.raises(StreamRefused) as caught:
        await soon(opening)
    assert (caught.value.status, caught.value.body) == (403, b"<html>no</html>")
    await peer.until_lost()


@pytest_twisted.ensureDeferred
async def test_a_refusal_that_ends_with_its_connection_is_told_with_what_came(
    listener: Listener, recorder: Recorder
) -> None:
    opening = open_at(listener, recorder)
    peer = await peer_of(listener)
    await peer.until_asked()
    peer.socket.write(b"HTTP/1.1 200 OK\r\n\r\n<html>welcome")
    peer.socket.loseConnection()
    with pytest.raises(StreamRefused) as caught:
        await soon(opening)
    assert (caught.value.status, caught.value.body) == (200, b"<html>welcome")


@pytest_twisted.ensureDeferred
async def test_an_endless_refusal_is_read_up_to_its_bound(listener: Listener, recorder: Recorder) -> None:
    opening = open_at(listener, recorder)
    peer = await peer_of(listener)
    await peer.until_asked()
    peer.socket.write(b"HTTP/1.1 502 Bad Gateway\r\n\r\n" + b"x" * (MAX_REFUSAL + 100_000))
    with pytest.raises(StreamRefused) as caught:
        await soon(opening)
    assert caught.value.body == b"x" * MAX_REFUSAL
    await peer.until_lost()


@pytest_twisted.ensureDeferred
async def test_an_interim_answer_is_waited_out(listener: Listener, recorder: Recorder) -> None:
    opening = open_at(listener, recorder)
    peer = await peer_of(listener)
    await peer.until_asked()
    peer.socket.write(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + peer.answer())
    stream = await soon(opening)
    await peer.end()
    await soon(stream.close())


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 101 Yes\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: wrong\r\n\r\n",
        b"HTTP/1.1 101 Yes\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 101 Yes\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Protocol: \xff\r\n\r\n",
        b"<html>this is no HTTP</html>\r\n\r\n",
        b"HTTP/1.1 101 Yes\r\n" + b"X-Filler: " + b"x" * 100_000,
    ],
    ids=["wrong key", "other protocol", "no ASCII", "no HTTP", "endless head"],
)
@pytest_twisted.ensureDeferred
async def test_what_is_no_websocket_is_malformed(listener: Listener, recorder: Recorder, answer: bytes) -> None:
    opening = open_at(listener, recorder)
    peer = await peer_of(listener)
    await peer.until_asked()
    peer.socket.write(answer)
    with pytest.raises(StreamMalformed):
        await soon(opening)
    await peer.until_lost()
    assert recorder.ends == []


@pytest_twisted.ensureDeferred
async def test_a_server_that_repeats_the_token_does_not_get_it_into_the_error(
    listener: Listener, recorder: Recorder
) -> None:
    opening = open_at(listener, recorder, subprotocols=("Bearer", TOKEN))
    peer = await peer_of(listener)
    await peer.agree(b"Sec-WebSocket-Protocol: Bearer, " + TOKEN.encode())
    with pytest.raises(StreamMalformed, match=r"unrecognized subprotocol$") as caught:
        await soon(opening)
    assert TOKEN not in Failure(caught.value).getTraceback()


@pytest.mark.parametrize(
    "wrong",
    [
        {"subprotocols": ("Bearer", "secret\r\nX-Injected: yes")},
        {"subprotocols": ("Bearer", "two words")},
        {"headers": {"Origin": "secret\r\nX-Injected: yes"}},
        {"path": "/v3/wa tch"},
    ],
    ids=["a line in a token", "a space in a token", "a line in a header", "a space in the path"],
)
def test_what_http_does_not_allow_is_refused_before_there_is_a_connection(
    listener: Listener, recorder: Recorder, wrong: dict[str, Any]
) -> None:
    options: dict[str, Any] = {"host": listener.authority, "path": "/v3/watch", **wrong}
    with pytest.raises(ValueError, match="HTTP does not allow") as caught:
        open_websocket(listener.endpoint, receiver=recorder, clock=CLOCK, handshake_timeout=30, **options)
    assert "secret" not in Failure(caught.value).getTraceback()
    assert listener.peers == []


# --- cut ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["loseConnection", "abortConnection"])
@pytest_twisted.ensureDeferred
async def test_cut_at_any_byte_it_gives_whole_messages_and_one_end(listener: Listener, how: str) -> None:
    connection = Connection(ConnectionType.SERVER)
    pieces = [frames(connection, TextMessage(message)) for message in MESSAGES]
    count = 0
    while True:
        recorder = Recorder()
        opening = open_at(listener, recorder)
        peer = await peer_of(listener, count)
        await peer.until_asked()
        answer = peer.answer()
        everything = answer + b"".join(pieces)
        peer.socket.write(everything[:count])
        if count >= len(answer):
            stream = await soon(opening)
            ends = [len(answer) + len(b"".join(pieces[: number + 1])) for number in range(len(pieces))]
            whole = sum(end <= count for end in ends)
            # A reset may overtake what was sent before it.
            await recorder.until(whole)
            getattr(peer.socket, how)()
            assert isinstance(await recorder.until_ended(), StreamLost)
            assert [message.decode() for message in recorder.messages] == MESSAGES[:whole]
            await soon(stream.close())
            assert len(recorder.ends) == 1
        else:
            getattr(peer.socket, how)()
            with pytest.raises(StreamLost):
                await soon(opening)
            assert recorder.ends == []
        if count == len(everything):
            break
        count += 1


class _Transport(StringTransport):
    """Notes an abort: ``StringTransport`` alone cannot."""

    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True

    def setTcpNoDelay(self, enabled: bool) -> None:  # noqa: FBT001
        self.no_delay = enabled


class _InMemory:
    """An endpoint whose connection is a transport in memory, so that a property test needs no network."""

    def connect(self, protocolFactory: Any) -> Deferred[Any]:  # noqa: ANN401, N803
        self.transport = _Transport()  # type: ignore[no-untyped-call]
        self.protocol: Protocol = protocolFactory.buildProtocol(None)
        self.protocol.makeConnection(self.transport)
        connected: Deferred[Any] = Deferred()
        connected.callback(self.protocol)
        return connected


@settings(max_examples=60, deadline=None)
@given(
    messages=st.lists(st.lists(st.text(max_size=200), min_size=1, max_size=4), max_size=5),
    cuts=st.lists(st.integers(0, 5000), max_size=30),
)
def test_messages_in_any_fragments_cut_anywhere_arrive_whole(messages: list[list[str]], cuts: list[int]) -> None:
    endpoint = _InMemory()
    recorder = Recorder()
    open_websocket(
        cast("Any", endpoint), host="h", path="/v3/watch", receiver=recorder, clock=Clock(), handshake_timeout=1
    )
    peer = WebSocketPeer()
    peer.data += endpoint.transport.value()  # type: ignore[no-untyped-call]
    connection = Connection(ConnectionType.SERVER)
    data = peer.answer()
    for fragments in messages:
        for number, fragment in enumerate(fragments, 1):
            data += frames(connection, TextMessage(fragment, message_finished=number == len(fragments)))
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    for start, stop in itertools.pairwise(places):
        endpoint.protocol.dataReceived(data[start:stop])
    assert [message.decode() for message in recorder.messages] == ["".join(fragments) for fragments in messages]
    endpoint.protocol.connectionLost(Failure(CancelledError()))
    assert len(recorder.ends) == 1


@st.composite
def any_frame(draw: st.DrawFn) -> bytes:
    """A frame of a server, most often as it should be."""
    whole_text = draw(st.integers(0, 3)) > 0
    first = 0x81 if whole_text else draw(st.sampled_from([0x01, 0x00, 0x80, 0x82, 0x02, 0x88, 0x89, 0x8A, 0x09]))
    if draw(st.integers(0, 30)) == 0:
        first = draw(st.integers(0, 255))
    payload = draw(
        st.one_of(
            st.text(st.characters(max_codepoint=127), max_size=200).map(str.encode),
            st.text(max_size=60).map(str.encode),
            st.integers(0, 400).map(lambda length: b"x" * length),
            st.integers(0, 200).map(lambda length: b"x" * length + b"\xff" + b"x" * length),
            st.sampled_from([b"\x03\xe8", b"\x03\xf4bye", b"\x03\xedno", b"\x03", "ß".encode()[:1], b"\x13\x88"]),
        )
    )
    if first & 0x0F >= 8:
        payload = payload[:125]
    masked = 0x80 if draw(st.integers(0, 40)) == 0 else 0
    form = draw(st.integers(0, 40))
    length = len(payload)
    if form == 0:
        head = bytes([first, masked | 127]) + struct.pack("!Q", length)
    elif form == 1 or length > 125:
        head = bytes([first, masked | 126]) + struct.pack("!H", length)
    else:
        head = bytes([first, masked | length])
    return head + (b"mask" if masked else b"") + payload


class EngineAlone:
    """What becomes of frames where an engine has them all."""

    def __init__(self, max_message: int) -> None:
        self.messages: list[bytes] = []
        self.sent: list[tuple[object, ...]] = []
        self.end: tuple[object, ...] | None = None
        self._engine = Connection(ConnectionType.CLIENT)
        self._parts = b""
        self._max_message = max_message

    def receive(self, data: bytes) -> None:
        if self.end is None:
            self._engine.receive_data(data)
            for event in self._engine.events():
                if self.end is None:
                    self._happened(event)

    def _happened(self, event: Event) -> None:
        if isinstance(event, TextMessage | BytesMessage):
            self._parts += event.data.encode() if isinstance(event.data, str) else bytes(event.data)
            if len(self._parts) > self._max_message:
                self._ends(MessageTooLong, None, 1009)
            elif event.message_finished:
                self.messages.append(self._parts)
                self._parts = b""
        elif isinstance(event, Ping):
            self.sent.append((Pong, bytes(event.payload)))
        elif isinstance(event, CloseConnection):
            if self._engine.state is ConnectionState.OPEN:
                self._ends(StreamMalformed, None, event.code)
            else:
                # No code is answered with none.
                self._ends(StreamLost, event.code, event.code)

    def _ends(self, kind: type[Exception], code: int | None, answer: int) -> None:
        self.end = (kind, code)
        self.sent.append((CloseConnection, int(answer)))


@settings(max_examples=1000, deadline=None)
@given(
    data=st.lists(any_frame(), max_size=12).map(b"".join),
    cuts=st.lists(st.integers(0, 3000), max_size=20),
    max_message=st.sampled_from([100, 1000]),
)
def test_whatever_frames_come_and_wherever_they_are_cut_it_is_as_if_the_engine_had_them_all(
    data: bytes, cuts: list[int], max_message: int
) -> None:
    endpoint = _InMemory()
    recorder = Recorder()
    open_websocket(
        cast("Any", endpoint),
        host="h",
        path="/v3/watch",
        receiver=recorder,
        clock=Clock(),
        handshake_timeout=1,
        max_message=max_message,
    )
    peer = WebSocketPeer()
    peer.data += endpoint.transport.value()  # type: ignore[no-untyped-call]
    # Some of it may come with the handshake, and be cut there as well.
    answer = peer.answer()
    data = answer + data
    alone = EngineAlone(max_message)
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    for start, stop in itertools.pairwise(places):
        endpoint.protocol.dataReceived(data[start:stop])
        if stop > len(answer):
            alone.receive(data[max(start, len(answer)) : stop])
        peer.data[:] = endpoint.transport.value()  # type: ignore[no-untyped-call]
        assert recorder.messages == alone.messages
        ends = [(type(end.value), getattr(end.value, "code", None)) for end in recorder.ends]
        assert ends == ([] if alone.end is None else [alone.end])
        told: list[tuple[object, ...]] = []
        for event in peer.told:
            assert isinstance(event, Pong | CloseConnection)
            told.append((Pong, bytes(event.payload)) if isinstance(event, Pong) else (CloseConnection, int(event.code)))
        assert told == alone.sent
    endpoint.protocol.connectionLost(Failure(CancelledError()))
    assert len(recorder.ends) == 1


def test_a_message_of_endless_empty_fragments_takes_no_memory() -> None:
    endpoint = _InMemory()
    recorder = Recorder()
    open_websocket(
        cast("Any", endpoint), host="h", path="/v3/watch", receiver=recorder, clock=Clock(), handshake_timeout=1
    )
    peer = WebSocketPeer()
    peer.data += endpoint.transport.value()  # type: ignore[no-untyped-call]
    endpoint.protocol.dataReceived(peer.answer() + b"\x01\x01x")
    fragments = b"\x00\x00" * 1000
    endpoint.protocol.dataReceived(fragments)
    tracemalloc.start()
    try:
        for _ in range(10):
            endpoint.protocol.dataReceived(fragments)
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # A place in a list for each would be 80 KB.
    assert grown < 20_000
    endpoint.protocol.dataReceived(b"\x80\x01y")
    assert recorder.messages == [b"xy"]
    endpoint.protocol.connectionLost(Failure(CancelledError()))


# --- messages -------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_pings_are_answered(listener: Listener, recorder: Recorder) -> None:
    stream, peer = await opened(listener, recorder)
    peer.say(Ping(b"are you there"))
    (pong,) = await peer.until_told(1)
    assert isinstance(pong, Pong)
    assert bytes(pong.payload) == b"are you there"
    await peer.end()
    await soon(stream.close())


@pytest_twisted.ensureDeferred
async def test_what_is_sent_arrives_as_text_in_order(listener: Listener, recorder: Recorder) -> None:
    stream, peer = await opened(listener, recorder)
    requests = [json.dumps({"n": number, "text": "größer" * number}) for number in range(50)]
    for request in requests:
        stream.send(request.encode())
    told = await peer.until_told(len(requests))
    assert [cast("TextMessage", event).data for event in told] == requests
    await peer.end()
    await soon(stream.close())


@pytest_twisted.ensureDeferred
async def test_a_large_message_of_many_fragments_arrives_whole(listener: Listener, recorder: Recorder) -> None:
    stream, peer = await opened(listener, recorder)
    fragment = "x" * 1000
    for number in range(10_000):
        peer.say(TextMessage(fragment, message_finished=number == 9_999))
    peer.say(BytesMessage(b'{"binary":', message_finished=False), BytesMessage(b"true}"))
    assert await recorder.until(2) == [b"x" * 10_000_000, b'{"binary":true}']
    await peer.end()
    await soon(stream.close())


@pytest_twisted.ensureDeferred
async def test_a_message_over_the_bound_ends_the_stream_with_code_1009(listener: Listener, recorder: Recorder) -> None:
    stream, peer = await opened(listener, recorder, max_message=1000)
    peer.say(TextMessage("x" * 1000), TextMessage("y" * 600, message_finished=False), TextMessage("y" * 600))
    end = await recorder.until_ended()
    assert isinstance(end, MessageTooLong)
    assert end.limit == 1000
    assert recorder.messages == [b"x" * 1000]
    (told,) = await peer.until_told(1)
    assert cast("CloseConnection", told).code == 1009
    await soon(stream.close())
    await peer.until_lost()


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\xff\x00", 1002),
        (b"\x81\x85abcdefghi", 1002),
        (b"\x80\x00", 1002),
        (b"\x81\x02\xff\xfe", 1007),
        (b"\x81\xff" + struct.pack("!Q", 1 << 63), 1002),
    ],
    ids=["reserved bits", "a masked frame", "a fragment of nothing", "no UTF-8", "an impossible length"],
)
@pytest_twisted.ensureDeferred
async def test_a_broken_frame_ends_the_stream(listener: Listener, recorder: Recorder, frame: bytes, code: int) -> None:
    stream, peer = await opened(listener, recorder)
    peer.say(TextMessage(MESSAGES[0]))
    peer.socket.write(frame)
    assert isinstance(await recorder.until_ended(), StreamMalformed)
    assert recorder.messages == [MESSAGES[0].encode()]
    (told,) = await peer.until_told(1)
    assert cast("CloseConnection", told).code == code
    await soon(stream.close())
    await peer.until_lost()


@pytest_twisted.ensureDeferred
async def test_a_paused_stream_makes_the_server_wait(listener: Listener, recorder: Recorder) -> None:
    stream, peer = await opened(listener, recorder)
    stream.pause()
    for _ in range(200):
        peer.say(TextMessage("x" * 100_000))
    other, second = await opened(listener, Recorder())
    await second.end()
    await soon(other.close())
    assert recorder.messages == []
    stream.resume()
    await recorder.until(200)
    await peer.end()
    await soon(stream.close())


# --- the end --------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_close_frame_of_the_server_ends_the_stream_with_its_code_and_reason(
    listener: Listener, recorder: Recorder
) -> None:
    stream, peer = await opened(listener, recorder)
    peer.say(CloseConnection(1012, "restarting"))
    end = await recorder.until_ended()
    assert isinstance(end, StreamLost)
    assert end.code == 1012
    assert str(end) == "the server closed the WebSocket with code 1012: restarting"
    (told,) = await peer.until_told(1)
    assert cast("CloseConnection", told).code == 1012
    await soon(stream.close())
    await peer.until_lost()
    assert len(recorder.ends) == 1


@pytest_twisted.ensureDeferred
async def test_a_bare_end_of_the_connection_has_no_code(listener: Listener, recorder: Recorder) -> None:
    stream, peer = await opened(listener, recorder)
    peer.socket.loseConnection()
    end = await recorder.until_ended()
    assert isinstance(end, StreamLost)
    assert end.code is None
    assert str(end) == "the server closed the connection"
    await soon(stream.close())


@pytest_twisted.ensureDeferred
async def test_closing_shakes_hands(listener: Listener, recorder: Recorder) -> None:
    stream, peer = await opened(listener, recorder)
    closings = [stream.close(), stream.close()]
    (told,) = await peer.until_told(1)
    assert cast("CloseConnection", told).code == 1000
    assert recorder.ends == []
    with pytest.raises(StreamClosed):
        stream.send(b"{}")
    peer.say(TextMessage(MESSAGES[0]), CloseConnection(1000))
    for closing in closings:
        await soon(closing)
        assert isinstance(recorder.end, StreamClosed)
    assert recorder.messages == []
    await soon(stream.close())
    assert repr(stream) == f"<WebSocket to {listener.authority}, gone>"


@pytest_twisted.ensureDeferred
async def test_a_server_that_does_not_shake_hands_is_aborted(listener: Listener, recorder: Recorder) -> None:
    clock = ClockedReactor()
    stream, peer = await opened(listener, recorder, clock=clock)
    stream.pause()
    closing = stream.close()
    await peer.until_told(1)
    peer.say(TextMessage(MESSAGES[0]), Ping(b"too late"))
    clock.advance(2)
    await soon(closing)
    assert isinstance(recorder.end, StreamClosed)
    assert recorder.messages == []
    await peer.until_lost()
    assert clock.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_a_receiver_may_close_inside_a_message(listener: Listener) -> None:
    class ClosesAtOnce(Recorder):
        stream: WebSocket

        def message_received(self, data: bytes) -> None:
            super().message_received(data)
            self.stream.close()

    receiver = ClosesAtOnce()
    receiver.stream, peer = await opened(listener, receiver)
    peer.say(*(TextMessage(message) for message in MESSAGES), CloseConnection(1000))
    assert isinstance(await receiver.until_ended(), StreamClosed)
    assert receiver.messages == [MESSAGES[0].encode()]
    await peer.until_lost()


@pytest_twisted.ensureDeferred
async def test_a_receiver_that_raises_ends_the_stream_with_its_error(
    listener: Listener, logged_errors: LoggedErrors
) -> None:
    class Raises(Recorder):
        def message_received(self, data: bytes) -> None:
            super().message_received(data)
            msg = "a mistake"
            raise LookupError(msg)

        def stream_ended(self, reason: Failure) -> None:
            super().stream_ended(reason)
            msg = "another"
            raise KeyError(msg)

    receiver = Raises()
    stream, peer = await opened(listener, receiver)
    peer.say(*(TextMessage(message) for message in MESSAGES))
    assert isinstance(await receiver.until_ended(), LookupError)
    assert receiver.messages == [MESSAGES[0].encode()]
    await soon(stream.close())
    await peer.until_lost()
    assert len(logged_errors.flush(LookupError)) == 2
