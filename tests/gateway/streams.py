"""What the tests of both stream carriers share."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import treq
import trustme
from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.ssl import Certificate, optionsForClientTLS
from twisted.python.failure import Failure
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS, HTTPConnectionPool

from tests.etcds import FreshEtcd, http_client
from tests.wire import Event, soon
from twisted_etcd.embedded.process import EmbeddedEtcd
from twisted_etcd.gateway.gateway import Gateway
from twisted_etcd.gateway.stream import Stream
from twisted_etcd.schema import rpcs

CLOCK = cast("Any", reactor)


class Recorder:
    """A receiver that keeps what it is told, and that tests can wait for."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.ends: list[Failure] = []
        self._event = Event()

    def messages_received(self, messages: Iterable[bytes]) -> None:
        for message in messages:
            self.message_received(message)

    def message_received(self, data: bytes) -> None:
        assert not self.ends, "a message came after the end"
        self.messages.append(data)
        self._event.happened()

    def stream_ended(self, reason: Failure) -> None:
        self.ends.append(reason)
        self._event.happened()

    async def until(self, count: int) -> list[bytes]:
        """The messages, once there are so many."""
        await self._event.until(lambda: len(self.messages) >= count)
        return self.messages

    async def until_ended(self) -> BaseException:
        """What ended the stream; it is told once."""
        await self._event.until(lambda: bool(self.ends))
        return self.end

    @property
    def end(self) -> BaseException:
        (end,) = self.ends
        assert end.value is not None
        return end.value

    async def until_events(self, count: int) -> list[tuple[int, bytes]]:
        """The watch's id and the value of so many events."""
        await self._event.until(lambda: len(self.events) >= count)
        return self.events

    @property
    def results(self) -> list[dict[str, Any]]:
        return [json.loads(message)["result"] for message in self.messages]

    @property
    def events(self) -> list[tuple[int, bytes]]:
        return [
            (int(result.get("watch_id", 0)), base64.b64decode(event["kv"].get("value", "")))
            for result in self.results
            for event in result.get("events", ())
        ]


def endpoint_of(url: str) -> TCP4ClientEndpoint:
    """What connects to the host of a URL."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return TCP4ClientEndpoint(CLOCK, parts.hostname, parts.port)


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def create_request(key: str, **options: object) -> bytes:
    """The JSON that creates a watch of one key."""
    return json.dumps({"create_request": {"key": b64(key), **options}}).encode()


async def watch_by_post(gateway: Gateway, recorder: Recorder) -> Stream:
    """A watch of the key ``a`` on a POST stream of its own."""
    return await soon(gateway.open_post_stream(rpcs.WATCH, create_request("a"), recorder, endpoint=gateway.choose()))


async def watch_by_websocket(gateway: Gateway, recorder: Recorder) -> Stream:
    """The same on a WebSocket."""
    stream = await soon(gateway.open_websocket(rpcs.WATCH, recorder, endpoint=gateway.choose()))
    stream.send(create_request("a"))
    return stream


async def put(etcd: EmbeddedEtcd, key: str, value: str) -> int:
    """Put a value; its revision."""
    answer = await post(etcd, "kv/put", {"key": b64(key), "value": b64(value)})
    return int(answer["header"]["revision"])


async def put_all(etcd: EmbeddedEtcd, keys: Sequence[str], value: str) -> None:
    """Put one value at many keys, in transactions as large as etcd takes."""
    for start in range(0, len(keys), 128):
        puts = [{"request_put": {"key": b64(key), "value": b64(value)}} for key in keys[start : start + 128]]
        await post(etcd, "kv/txn", {"success": puts})


async def post(etcd: EmbeddedEtcd, path: str, body: dict[str, object]) -> dict[str, Any]:
    response = await http_client().post(f"{etcd.endpoint}/v3/{path}", json=body)
    answer = cast("dict[str, Any]", await treq.json_content(response))
    assert "header" in answer, answer
    return answer


async def watchers(etcd: EmbeddedEtcd) -> int:
    """How many watches the server has."""
    response = await http_client().get(f"{etcd.endpoint}/metrics")
    metrics = await treq.text_content(response)
    found = re.search(r"^etcd_debugging_mvcc_watcher_total (\S+)$", metrics, re.MULTILINE)
    assert found is not None
    return int(found[1])


async def until_watchers(etcd: EmbeddedEtcd, count: int) -> None:
    """Until the server has so many watches; asking it is the way to wait."""
    for _ in range(1000):
        if await watchers(etcd) == count:
            return
    msg = f"the server still has {await watchers(etcd)} watches, not {count}"
    raise AssertionError(msg)


async def secure_etcd(fresh_etcd: FreshEtcd, tmp_path: Path, authority: trustme.CA) -> EmbeddedEtcd:
    """An etcd that speaks TLS, with a certificate of that authority for ``localhost``."""
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    cert_file, key_file = tmp_path / "cert.pem", tmp_path / "key.pem"
    certificate.private_key_pem.write_to_path(key_file)
    certificate.cert_chain_pems[0].write_to_path(cert_file)
    policy = BrowserLikePolicyForHTTPS(_trust(authority))
    client = HTTPClient(Agent(reactor, policy, pool=HTTPConnectionPool(reactor, persistent=False)))
    return await fresh_etcd(tls=True, client=client, extra_args=(f"--cert-file={cert_file}", f"--key-file={key_file}"))


def secure_endpoint(etcd: EmbeddedEtcd, believed: trustme.CA, name: str = "localhost") -> IStreamClientEndpoint:
    """What connects to it with TLS, believing one authority and expecting that name."""
    return wrapClientTLS(optionsForClientTLS(name, _trust(believed)), endpoint_of(etcd.endpoint))


def _trust(authority: trustme.CA) -> Certificate:
    return Certificate.loadPEM(authority.cert_pem.bytes())
