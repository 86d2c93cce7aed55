"""Streams over POST: with a real etcd, and with servers that misbehave."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_twisted
import trustme
from OpenSSL import SSL
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

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
from twisted_etcd.gateway.poststream import PostStream, open_post_stream
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

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
MESSAGES = [b'{"result":{"created":true}}', b'{"result":{"events":[1,2]}}', b'{"error":{"code":14}}']


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def open_at(
    listener: Listener,
    receiver: StreamReceiver,
    *,
    body: bytes = b"{}",
    headers: Mapping[str, str] | None = None,
    clock: IReactorTime = CLOCK,
    max_message: int = MAX_MESSAGE,
) -> Deferred[PostStream]:
    return open_post_stream(
        listener.endpoint,
        f"http://{listener.authority}/v3/watch",
        headers or {},
        body,
        receiver,
        clock=clock,
        head_timeout=30,
        max_message=max_message,
    )


def watch(etcd: EmbeddedEtcd, key: str, receiver: StreamReceiver, **options: object) -> Deferred[PostStream]:
    return soon(
        open_post_stream(
            endpoint_of(etcd.endpoint),
            f"{etcd.endpoint}/v3/watch",
            {},
            create_request(key, **options),
            receiver,
            clock=CLOCK,
            head_timeout=10,
        )
    )


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = Listener()
    yield listener
    pytest_twisted.blockon(Deferred.fromCoroutine(cast("Any", listener.close())))


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


# --- with etcd ------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_watch_brings_created_and_then_events(
    etcd_server: EmbeddedEtcd, prefix: str, recorder: Recorder
) -> None:
    stream = await watch(etcd_server, prefix, recorder)
    assert f"http://{stream.endpoint}" == etcd_server.endpoint
    await recorder.until(1)
    await put(etcd_server, prefix, "one")
    await put(etcd_server, prefix, "two")
    assert await recorder.until_events(2) == [(0, b"one"), (0, b"two")]
    assert recorder.results[0]["created"] is True
    assert stream.is_open
    await soon(stream.close())
    assert not stream.is_open
    assert isinstance(recorder.end, StreamClosed)


@pytest_twisted.ensureDeferred
async def test_closing_the_stream_ends_the_watch_on_the_server(
    etcd_server: EmbeddedEtcd, prefix: str, recorder: Recorder
) -> None:
    before = await watchers(etcd_server)
    stream = await watch(etcd_server, prefix, recorder)
    await recorder.until(1)
    await until_watchers(etcd_server, before + 1)
    await soon(stream.close())
    await until_watchers(etcd_server, before)


@pytest_twisted.ensureDeferred
async def test_events_of_several_megabytes_arrive_whole(
    etcd_server: EmbeddedEtcd, prefix: str, recorder: Recorder
) -> None:
    revision = 0
    values = [letter * 1_400_000 for letter in "abcde"]
    for value in values:
        revision = revision or await put(etcd_server, prefix, "")
        await put(etcd_server, prefix, value)
    # From an old revision, so that etcd sends all of them in one message.
    stream = await watch(etcd_server, prefix, recorder, start_revision=revision + 1)
    events = await recorder.until_events(len(values))
    assert events == [(0, value.encode()) for value in values]
    assert max(len(message) for message in recorder.messages) > 5_000_000
    await soon(stream.close())


@pytest_twisted.ensureDeferred
async def test_thousands_of_events_arrive_in_order(etcd_server: EmbeddedEtcd, prefix: str, recorder: Recorder) -> None:
    stream = await watch(etcd_server, prefix, recorder, range_end="AA==")
    keys = [f"{prefix}{number:05}" for number in range(2000)]
    await put_all(etcd_server, keys, "value")
    assert len(await recorder.until_events(2000)) == 2000
    await soon(stream.close())


@pytest_twisted.ensureDeferred
async def test_a_server_that_stops_ends_the_stream(fresh_etcd: FreshEtcd, recorder: Recorder) -> None:
    etcd = await fresh_etcd()
    stream = await watch(etcd, "key", recorder)
    await recorder.until(1)
    await etcd.stopService()
    assert isinstance(await recorder.until_ended(), StreamLost)
    await soon(stream.close())


@pytest_twisted.ensureDeferred
async def test_a_refusal_of_etcd_is_told_with_its_body(etcd_server: EmbeddedEtcd, recorder: Recorder) -> None:
    opening = open_post_stream(
        endpoint_of(etcd_server.endpoint),
        f"{etcd_server.endpoint}/v3/kv/put",
        {},
        b"{}",
        recorder,
        clock=CLOCK,
        head_timeout=10,
    )
    with pytest.raises(StreamRefused, match="status 400") as caught:
        await soon(opening)
    assert caught.value.status == 400
    assert json.loads(caught.value.body)["message"] == "etcdserver: key is not provided"
    assert recorder.ends == []


@pytest_twisted.ensureDeferred
async def test_a_stream_over_tls_opens_carries_and_closes(
    fresh_etcd: FreshEtcd, tmp_path: Path, recorder: Recorder
) -> None:
    authority = trustme.CA()
    etcd = await secure_etcd(fresh_etcd, tmp_path, authority)
    endpoint = secure_endpoint(etcd, authority)
    opening = open_post_stream(
        endpoint, f"{etcd.endpoint}/v3/watch", {}, create_request("key"), recorder, clock=CLOCK, head_timeout=10
    )
    stream = await soon(opening)
    await recorder.until(1)
    stream.pause()
    stream.resume()
    await soon(stream.close())
    assert isinstance(recorder.end, StreamClosed)


@pytest_twisted.ensureDeferred
async def test_a_certificate_that_is_not_believed_fails_with_the_tls_error(
    fresh_etcd: FreshEtcd, tmp_path: Path, recorder: Recorder
) -> None:
    etcd = await secure_etcd(fresh_etcd, tmp_path, trustme.CA())
    endpoint = secure_endpoint(etcd, trustme.CA())
    with pytest.raises(SSL.Error, match="certificate verify failed"):
        await soon(
            open_post_stream(
                endpoint, f"{etcd.endpoint}/v3/watch", {}, create_request("key"), recorder, clock=CLOCK, head_timeout=10
            )
        )


# --- opening --------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_the_request_is_a_post_with_its_headers_and_its_body(listener: Listener, recorder: Recorder) -> None:
    opening = open_at(listener, recorder, body=b'{"create_request":{}}', headers={"Authorization": "secret-token"})
    peer = await listener.peer()
    await peer.until_received(b'{"create_request":{}}')
    head = bytes(peer.data).partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert head[0] == b"POST /v3/watch HTTP/1.1"
    lines = {line.lower() for line in head[1:]}
    assert {
        b"host: " + listener.authority.encode(),
        b"accept: application/json",
        b"content-length: 21",
        b"authorization: secret-token",
    } <= lines
    peer.socket.write(HEAD)
    stream = await soon(opening)
    assert "secret-token" not in repr(stream)
    await soon(stream.close())
    assert "secret-token" not in repr(recorder.ends)


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

    def note(stream: PostStream) -> PostStream:
        order.append("open")
        return stream

    receiver = Receiver()
    opening = open_at(listener, receiver).addCallback(note)
    peer = await listener.peer()
    peer.socket.write(HEAD + chunk(MESSAGES[0] + b"\n") + chunk(b""))
    stream = await soon(opening)
    await receiver.until_ended()
    assert order == ["open", "message", "end"]
    await soon(stream.close())
    assert len(receiver.ends) == 1


@pytest_twisted.ensureDeferred
async def test_an_empty_answer_is_a_stream_that_ends_after_it_has_opened(
    listener: Listener, recorder: Recorder
) -> None:
    opening = open_at(listener, recorder)
    peer = await listener.peer()
    peer.socket.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    stream = await soon(opening)
    assert isinstance(await recorder.until_ended(), StreamLost)
    await soon(stream.close())
    await peer.until_lost()


@pytest_twisted.ensureDeferred
async def test_a_refused_connection_fails_as_such(listener: Listener, recorder: Recorder) -> None:
    await listener.close()
    with pytest.raises(ConnectError):
        await soon(open_at(listener, recorder))


@pytest_twisted.ensureDeferred
async def test_a_head_that_does_not_come_in_time_fails_and_closes_the_connection(
    listener: Listener, recorder: Recorder
) -> None:
    clock = ClockedReactor()
    opening = open_at(listener, recorder, clock=clock)
    peer = await listener.peer()
    await peer.until_received(b"{}")
    clock.advance(31)
    with pytest.raises(StreamTimeout, match="within 30 s"):
        await soon(opening)
    await peer.until_lost()
    assert clock.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_the_head_timeout_covers_the_body_of_a_refusal(listener: Listener, recorder: Recorder) -> None:
    clock = ClockedReactor()
    opening = open_at(listener, recorder, clock=clock)
    peer = await listener.peer()
    peer.socket.write(b"HTTP/1.1 503 Unavailable\r\nContent-Length: 100\r\n\r\nbut no more than this")
    await peer.until_received(b"{}")
    clock.advance(31)
    with pytest.raises(StreamTimeout):
        await soon(opening)
    await peer.until_lost()


@pytest_twisted.ensureDeferred
async def test_the_head_timeout_ends_with_the_head(listener: Listener, recorder: Recorder) -> None:
    clock = ClockedReactor()
    opening = open_at(listener, recorder, clock=clock)
    peer = await listener.peer()
    peer.socket.write(HEAD)
    stream = await soon(opening)
    clock.advance(1000)
    peer.socket.write(chunk(MESSAGES[0] + b"\n"))
    await recorder.until(1)
    assert clock.getDelayedCalls() == []
    await soon(stream.close())


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200", b"HTTP/1.1 500 Bad\r\nContent-Length: 9\r\n\r\nhalf"])
@pytest_twisted.ensureDeferred
async def test_cancelling_the_opening_closes_the_connection(
    listener: Listener, recorder: Recorder, sent: bytes
) -> None:
    opening = open_at(listener, recorder)
    peer = await listener.peer()
    await peer.until_received(b"{}")
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
async def test_a_redirect_is_a_refusal_and_is_not_followed(listener: Listener, recorder: Recorder) -> None:
    opening = open_at(listener, recorder)
    peer = await listener.peer()
    location = f"http://{listener.authority}/elsewhere".encode()
    peer.socket.write(b"HTTP/1.1 307 Elsewhere\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % location)
    with pytest.raises(StreamRefused) as caught:
        await soon(opening)
    assert (caught.value.status, caught.value.body) == (307, b"")
    await peer.until_lost()
    assert len(listener.peers) == 1


@pytest_twisted.ensureDeferred
async def test_an_endless_refusal_is_read_up_to_its_bound(listener: Listener, recorder: Recorder) -> None:
    opening = open_at(listener, recorder)
    peer = await listener.peer()
    peer.socket.write(b"HTTP/1.1 502 Bad Gateway\r\n\r\n" + b"x" * (MAX_REFUSAL + 100_000))
    with pytest.raises(StreamRefused) as caught:
        await soon(opening)
    assert caught.value.body == b"x" * MAX_REFUSAL
    await peer.until_lost()


@pytest_twisted.ensureDeferred
async def test_a_refusal_whose_body_breaks_off_is_still_a_refusal(listener: Listener, recorder: Recorder) -> None:
    opening = open_at(listener, recorder)
    peer = await listener.peer()
    peer.socket.write(b"HTTP/1.1 500 Bad\r\nContent-Length: 100\r\n\r\nas far as it goes")
    peer.socket.loseConnection()
    with pytest.raises(StreamRefused) as caught:
        await soon(opening)
    assert (caught.value.status, caught.value.body) == (500, b"as far as it goes")


@pytest.mark.parametrize("nonsense", [b"SSH-2.0-OpenSSH_9.2\r\n", b"\x00\x01\x02\n\n\n", b"HTTP/1.1 what now\r\n\r\n"])
@pytest_twisted.ensureDeferred
async def test_what_is_not_http_is_malformed(listener: Listener, recorder: Recorder, nonsense: bytes) -> None:
    opening = open_at(listener, recorder)
    peer = await listener.peer()
    peer.socket.write(nonsense)
    with pytest.raises(StreamMalformed):
        await soon(opening)
    await peer.until_lost()


# --- cut ------------------------------------------------------------------------------------------------------------

RECORDED = HEAD + b"".join(chunk(message + b"\n") for message in MESSAGES) + chunk(b"")


def whole_messages(sent: bytes) -> list[bytes]:
    """The messages of which all but the newline was sent."""
    return [message for message in MESSAGES if sent.find(message) >= 0]


@pytest.mark.parametrize("how", ["loseConnection", "abortConnection"])
@pytest_twisted.ensureDeferred
async def test_cut_at_any_byte_it_gives_whole_messages_and_one_end(listener: Listener, how: str) -> None:
    for count in range(len(RECORDED) + 1):
        sent = RECORDED[:count]
        recorder = Recorder()
        opening = open_at(listener, recorder)
        peer = await listener.peer(count)
        await peer.until_received(b"{}")
        peer.socket.write(sent)
        if count >= len(HEAD):
            stream = await soon(opening)
            # A reset may overtake what was sent before it.
            await recorder.until(sum(message + b"\n" in sent for message in MESSAGES))
            getattr(peer.socket, how)()
            await recorder.until_ended()
            assert isinstance(recorder.end, StreamLost), count
            assert recorder.messages == whole_messages(sent), count
            await soon(stream.close())
            assert len(recorder.ends) == 1
        else:
            getattr(peer.socket, how)()
            with pytest.raises(StreamLost):
                await soon(opening)
            assert recorder.ends == []


@pytest_twisted.ensureDeferred
async def test_in_pieces_of_any_size_it_gives_the_same_messages(listener: Listener) -> None:
    for number, size in enumerate((1, 2, 3, 7, 50)):
        recorder = Recorder()
        opening = open_at(listener, recorder)
        peer = await listener.peer(number)
        await peer.until_received(b"{}")
        data = b"\n".join(MESSAGES)
        peer.socket.write(HEAD + b"".join(chunk(data[at : at + size]) for at in range(0, len(data), size)) + chunk(b""))
        stream = await soon(opening)
        await recorder.until_ended()
        assert recorder.messages == MESSAGES
        await soon(stream.close())


@pytest_twisted.ensureDeferred
async def test_a_broken_chunk_ends_the_stream(listener: Listener, recorder: Recorder) -> None:
    opening = open_at(listener, recorder)
    peer = await listener.peer()
    peer.socket.write(HEAD + chunk(MESSAGES[0] + b"\n") + b"no number\r\n")
    stream = await soon(opening)
    assert isinstance(await recorder.until_ended(), StreamMalformed)
    assert recorder.messages == MESSAGES[:1]
    await soon(stream.close())
    await peer.until_lost()


@pytest_twisted.ensureDeferred
async def test_a_body_without_a_length_ends_with_its_connection(listener: Listener, recorder: Recorder) -> None:
    opening = open_at(listener, recorder)
    peer = await listener.peer()
    peer.socket.write(b"HTTP/1.1 200 OK\r\n\r\n" + MESSAGES[0] + b"\n" + MESSAGES[1])
    peer.socket.loseConnection()
    stream = await soon(opening)
    assert str(await recorder.until_ended()) == "the server ended the stream"
    assert recorder.messages == MESSAGES[:2]
    await soon(stream.close())


# --- bounds, back-pressure, closing ---------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_message_over_the_bound_ends_the_stream_after_those_before_it(
    listener: Listener, recorder: Recorder
) -> None:
    opening = open_at(listener, recorder, max_message=1000)
    peer = await listener.peer()
    peer.socket.write(HEAD + chunk(MESSAGES[0] + b"\n" + b"x" * 1001 + b"\n" + MESSAGES[1] + b"\n"))
    stream = await soon(opening)
    end = await recorder.until_ended()
    assert isinstance(end, MessageTooLong)
    assert end.limit == 1000
    assert recorder.messages == MESSAGES[:1]
    await soon(stream.close())
    await peer.until_lost()


@pytest_twisted.ensureDeferred
async def test_a_paused_stream_makes_the_server_wait(listener: Listener, recorder: Recorder) -> None:
    # Paused by whoever gets it, which is before the body begins.
    def paused(stream: PostStream) -> PostStream:
        stream.pause()
        return stream

    opening = open_at(listener, recorder).addCallback(paused)
    peer = await listener.peer()
    peer.socket.write(HEAD)
    stream = await soon(opening)
    line = b'"' + b"x" * 99_997 + b'"\n'
    count = 200
    producer = _Producer(peer, [chunk(line)] * count)
    peer.socket.registerProducer(producer, False)  # type: ignore[attr-defined]
    other = Recorder()
    unpaused = open_at(listener, other)
    second = await listener.peer(1)
    second.socket.write(HEAD + chunk(MESSAGES[0] + b"\n"))
    await (await soon(unpaused)).close()
    assert recorder.messages == []
    assert producer.left > 0
    stream.resume()
    await recorder.until(count)
    assert producer.left == 0
    await soon(stream.close())


class _Producer:
    """Writes one piece after the other, as the socket takes them."""

    def __init__(self, peer: Peer, pieces: list[bytes]) -> None:
        self._peer = peer
        self._pieces = pieces

    @property
    def left(self) -> int:
        return len(self._pieces)

    def resumeProducing(self) -> None:
        self._peer.socket.write(self._pieces.pop())
        if not self._pieces:
            self._peer.socket.unregisterProducer()  # type: ignore[attr-defined]

    def stopProducing(self) -> None:
        self._pieces.clear()


@pytest_twisted.ensureDeferred
async def test_a_paused_stream_can_be_closed(listener: Listener, recorder: Recorder) -> None:
    opening = open_at(listener, recorder)
    peer = await listener.peer()
    peer.socket.write(HEAD)
    stream = await soon(opening)
    stream.pause()
    await soon(stream.close())
    stream.pause()
    stream.resume()
    assert isinstance(recorder.end, StreamClosed)
    await peer.until_lost()


@pytest_twisted.ensureDeferred
async def test_closing_may_be_asked_for_often_and_tells_the_receiver_once_and_not_inside(
    listener: Listener, recorder: Recorder
) -> None:
    opening = open_at(listener, recorder)
    peer = await listener.peer()
    peer.socket.write(HEAD)
    stream = await soon(opening)
    closings = [stream.close(), stream.close()]
    assert recorder.ends == []
    assert not stream.is_open
    for closing in closings:
        await soon(closing)
        assert len(recorder.ends) == 1
    await soon(stream.close())
    assert isinstance(recorder.end, StreamClosed)
    assert repr(stream) == f"<PostStream to {listener.authority}, gone>"


@pytest_twisted.ensureDeferred
async def test_no_message_comes_after_close(listener: Listener) -> None:
    class ClosesAtOnce(Recorder):
        stream: PostStream

        def message_received(self, data: bytes) -> None:
            super().message_received(data)
            self.stream.close()

    receiver = ClosesAtOnce()

    def opened(stream: PostStream) -> PostStream:
        receiver.stream = stream
        return stream

    opening = open_at(listener, receiver).addCallback(opened)
    peer = await listener.peer()
    peer.socket.write(HEAD + b"".join(chunk(message + b"\n") for message in MESSAGES) + chunk(b""))
    await soon(opening)
    assert isinstance(await receiver.until_ended(), StreamClosed)
    assert receiver.messages == MESSAGES[:1]


@pytest_twisted.ensureDeferred
async def test_what_one_read_of_the_socket_brings_is_handed_on_together(listener: Listener) -> None:
    class Counts(Recorder):
        calls = 0

        def messages_received(self, messages: Iterable[bytes]) -> None:
            self.calls += 1
            super().messages_received(messages)

    receiver = Counts()
    opening = open_at(listener, receiver)
    peer = await listener.peer()
    peer.socket.write(HEAD)
    stream = await soon(opening)
    # Less than a read takes, in one segment.
    peer.socket.write(b"".join(chunk(message + b"\n") for message in MESSAGES * 10))
    assert await receiver.until(len(MESSAGES) * 10) == MESSAGES * 10
    assert receiver.calls == 1
    await soon(stream.close())


@pytest_twisted.ensureDeferred
async def test_close_waits_for_the_socket_of_a_stream_that_the_server_ended(listener: Listener) -> None:
    class ClosesAtTheEnd(Recorder):
        stream: PostStream
        closing: Deferred[None]

        def stream_ended(self, reason: Failure) -> None:
            self.closing = self.stream.close()
            assert not self.closing.called
            super().stream_ended(reason)

    receiver = ClosesAtTheEnd()

    def opened(stream: PostStream) -> PostStream:
        receiver.stream = stream
        return stream

    opening = open_at(listener, receiver).addCallback(opened)
    peer = await listener.peer()
    peer.socket.write(HEAD + chunk(b""))
    await soon(opening)
    assert isinstance(await receiver.until_ended(), StreamLost)
    await soon(receiver.closing)
    assert repr(receiver.stream).endswith("gone>")


@pytest_twisted.ensureDeferred
async def test_a_receiver_that_raises_ends_the_stream_with_its_error(
    listener: Listener, logged_errors: LoggedErrors
) -> None:
    class Raises(Recorder):
        def message_received(self, data: bytes) -> None:
            super().message_received(data)
            msg = "a mistake"
            raise LookupError(msg)

    receiver = Raises()
    opening = open_at(listener, receiver)
    peer = await listener.peer()
    peer.socket.write(HEAD + b"".join(chunk(message + b"\n") for message in MESSAGES))
    stream = await soon(opening)
    assert isinstance(await receiver.until_ended(), LookupError)
    assert receiver.messages == MESSAGES[:1]
    await soon(stream.close())
    await peer.until_lost()
    assert len(logged_errors.flush(LookupError)) == 1
