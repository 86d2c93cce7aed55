"""What a connection with TLS comes to that is cut off at any byte: the records hide where the request ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import pytest_twisted

from tests.etcds import new_etcd
from tests.gateway.authorities import Papers, probing
from tests.gateway.conftest import MakeGateway, MakeProxy
from tests.wire import soon
from twisted_etcd.embedded.process import EmbeddedEtcd
from twisted_etcd.errors import OutcomeUnknown, Unavailable
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.kv import PutRequest, RangeRequest
from twisted_etcd.testing.connections import Direction, ProxiedConnection

#: Bytes between two places where it is cut off.
STEP = 40


class Secure(NamedTuple):
    etcd: EmbeddedEtcd
    papers: Papers


@pytest.fixture(scope="module")
def secure(etcd_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    """An etcd that speaks TLS."""
    papers = Papers(tmp_path_factory.mktemp("papers"))
    cert_file, key_file = papers.pair("server", "127.0.0.1")
    etcd = new_etcd(
        etcd_binary,
        tls=True,
        client=probing(papers.settings()),
        extra_args=(f"--cert-file={cert_file}", f"--key-file={key_file}"),
    )
    etcd.startService()
    pytest_twisted.blockon(etcd.when_ready())
    yield Secure(etcd, papers)
    pytest_twisted.blockon(etcd.stopService())


@pytest.mark.parametrize("direction", ["requests", "answers"])
@pytest_twisted.ensureDeferred
async def test_cut_off_anywhere_reads_are_answered_and_writes_told_truly(
    secure: Secure, make_gateway: MakeGateway, make_proxy: MakeProxy, prefix: str, direction: Direction
) -> None:
    proxy = make_proxy(secure.etcd.endpoint)
    endpoints = (proxy.endpoint, secure.etcd.endpoint)
    tls = secure.papers.settings()
    direct = make_gateway(secure.etcd.endpoint, tls=tls)
    await soon(make_gateway(proxy.endpoint, tls=tls).unary(rpcs.PUT, PutRequest(key=prefix.encode())))
    length = proxy.requests if direction == "requests" else proxy.answers
    told: Counter[type[Exception] | None] = Counter()
    for count in range(0, length, STEP):
        key = b"%s%06d" % (prefix.encode(), count)
        proxy.next_connection().addCallback(ProxiedConnection.cut_after, count, direction)
        await soon(make_gateway(*endpoints, tls=tls).unary(rpcs.RANGE, RangeRequest(key=key)))
        proxy.next_connection().addCallback(ProxiedConnection.cut_after, count, direction)
        outcome: type[Exception] | None = None
        try:
            await soon(make_gateway(*endpoints, tls=tls).unary(rpcs.PUT, PutRequest(key=key)))
        except OutcomeUnknown:
            outcome = OutcomeUnknown
        told[outcome] += 1
        found = (await soon(direct.unary(rpcs.RANGE, RangeRequest(key=key)))).kvs
        assert [pair.version for pair in found] in ([[1]] if outcome is None else [[], [1]])
    # Before the handshake is over, nothing was sent, so that it went elsewhere.
    assert told[None] > 0
    assert told[OutcomeUnknown] > 0


@pytest.mark.parametrize("direction", ["requests", "answers"])
@pytest_twisted.ensureDeferred
async def test_a_write_whose_handshake_never_ends_well_is_certainly_not_applied(
    secure: Secure, make_gateway: MakeGateway, make_proxy: MakeProxy, prefix: str, direction: Direction
) -> None:
    proxy = make_proxy(secure.etcd.endpoint)
    proxy.cut_after(100, direction)
    tls = secure.papers.settings()
    with pytest.raises(Unavailable):
        await soon(make_gateway(proxy.endpoint, tls=tls).unary(rpcs.PUT, PutRequest(key=prefix.encode()), timeout=0.2))
    found = await soon(make_gateway(secure.etcd.endpoint, tls=tls).unary(rpcs.RANGE, RangeRequest(key=prefix.encode())))
    assert found.kvs == ()
