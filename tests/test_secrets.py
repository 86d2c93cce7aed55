"""No password, no token and no value of a key in anything that is logged, raised or shown."""

from __future__ import annotations

import base64
import gc
import logging
import traceback
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, cast

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import ILogObserver, LogEvent, formatEventAsClassicLogText, globalLogPublisher

from tests.client import users
from tests.client.conftest import proxy_before
from tests.etcds import FreshEtcd
from tests.wire import soon
from twisted_etcd.client import compare, op
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.errors import TwistedEtcdError
from twisted_etcd.messaging.messages import Message as NodeMessage
from twisted_etcd.messaging.node import Node
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.auth import AuthenticateRequest, AuthUserChangePasswordRequest
from twisted_etcd.schema.common import Message
from twisted_etcd.services.api import EtcdApi
from twisted_etcd.services.etcd import EtcdService
from twisted_etcd.services.messages import EtcdSetReq

VALUE, CONFIGURED, METADATA = "a very secret value", "a secret of the configuration", "secret-of-the-metadata"
WRONG, NEW = "a password that is wrong", "the new password"
#: All but the tokens, which etcd makes.
SECRETS = (VALUE, CONFIGURED, WRONG, NEW, users.ROOT["password"], users.USER["password"])


class Everything:
    """All that a run shows of itself: what is logged, and what its errors say."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def log(self, event: LogEvent) -> None:
        if event.get("log_namespace") != "etcd":
            self.texts.append(f"{formatEventAsClassicLogText(event)} {dict(event)!r}")

    def error(self, error: BaseException) -> None:
        self.texts += [*traceback.format_exception(error), repr(error), str(error), repr(vars(error))]

    async def fails(self, deferred: Deferred[Any]) -> None:
        try:
            await soon(deferred)
        except TwistedEtcdError as error:
            self.error(error)
        else:
            pytest.fail("it did not fail")

    def shows(self, secret: str) -> list[str]:
        """The texts in which it is, in one form or another."""
        forms = {secret, base64.b64encode(secret.encode()).decode(), secret.encode().hex(), repr(secret)[1:-1]}
        return [text for text in self.texts if any(form in text for form in forms)]


@pytest.fixture
def everything(caplog: pytest.LogCaptureFixture) -> Iterator[Everything]:
    found = Everything()
    observer = cast("ILogObserver", found.log)
    globalLogPublisher.addObserver(observer)
    with caplog.at_level(logging.DEBUG):
        yield found
    globalLogPublisher.removeObserver(observer)


async def use(client: EtcdClient, found: Everything) -> None:
    """Requests, watches and leases that succeed, and requests that fail."""
    watches = [client.watch("/test", prefix=True, prev_kv=True), client.watch("/test/k")]
    await soon(gatherResults([watch.ready for watch in watches]))
    await client.put("/test/k", VALUE)
    await client.txn([compare.value("/test/k", "=", VALUE)], [op.put("/test/k", VALUE)], [op.get("/test/k")])
    lease = await client.lease(60)
    await client.put("/test/l", VALUE, lease=lease.id)
    found.texts += [repr(await watch.next()) for watch in watches]
    found.texts += [repr(each) for each in (await client.get("/test", prefix=True), client, lease, *watches)]
    await found.fails(client.put("/not-allowed", VALUE))
    await found.fails(client.txn(success=[op.put("/test/k", VALUE), op.put("/not-allowed", VALUE)]))
    await found.fails(client.put("/test/k", VALUE * 200_000))
    await found.fails(client.put("/test/k", VALUE, lease=5))
    await found.fails(client.put("", VALUE))
    with pytest.raises(TypeError) as raised:
        client.put("/test/k", [VALUE])  # type: ignore[arg-type]
    found.error(raised.value)


@ensureDeferred
async def test_nothing_secret_is_logged_raised_or_shown(fresh_etcd: FreshEtcd, everything: Everything) -> None:
    server = await fresh_etcd(extra_args=[users.CHEAP])
    await users.set_up(server)
    proxy = proxy_before(server)
    found = everything
    client = EtcdClient(reactor, proxy.endpoint, own_streams=1, **cast("Any", users.USER))
    root = EtcdClient(reactor, server.endpoint, **cast("Any", users.ROOT))
    await use(client, found)
    # Cut in the answer, before it, and not answered at all.
    for offset in (0, 20, 150):
        proxy.cut_after(offset)
        await found.fails(client.put("/test/k", VALUE))
        await soon(proxy.heal())
    proxy.swallow()
    await found.fails(client.put("/test/k", VALUE, timeout=0.3))
    await soon(proxy.heal())
    # Users, and a password that changes while a watch and requests need it.
    wrong = EtcdClient(reactor, server.endpoint, username="user", password=WRONG)
    await found.fails(wrong.put("/test/k", VALUE))
    change = AuthUserChangePasswordRequest("user", NEW)
    found.texts += [repr(change), repr(AuthenticateRequest("user", NEW))]
    await root.call(rpcs.USER_CHANGE_PASSWORD, change)
    proxy.reset()
    with suppress(TwistedEtcdError):
        await soon(client.put("/test/k", VALUE))
    await found.fails(client.call(rpcs.USER_CHANGE_PASSWORD, AuthUserChangePasswordRequest("root", NEW)))
    await use_messages(root, found)
    tokens = held("token")
    found.texts += [repr(each) for each in gc.get_objects() if isinstance(each, Message | NodeMessage)]
    for each in (client, root, wrong):
        await soon(each.stopService())
    await soon(proxy.stopService())
    assert len(found.texts) > 100
    for secret in (*SECRETS, METADATA, *tokens):
        assert found.shows(secret)[:1] == [], secret


def held(name: str) -> list[str]:
    """The tokens that are in memory, in answers or kept."""
    from twisted_etcd.gateway.tokens import Tokens  # noqa: PLC0415 - what is looked for is its secret

    kept = [each._token for each in gc.get_objects() if isinstance(each, Tokens)]  # noqa: SLF001 - likewise
    found = [token for token in kept if token]
    assert found, f"no {name} is in use, so that there is nothing to look for"
    return found


async def use_messages(client: EtcdClient, found: Everything) -> None:
    """The same through a node."""
    node = Node(cast("Any", reactor))
    service = EtcdService(client, cast("Any", reactor))
    service.setServiceParent(node)
    node.startService()
    await soon(node.when_started())
    api = EtcdApi(node)
    changes: list[Any] = []
    await soon(api.set_config("app", CONFIGURED))
    await soon(api.watch_config("app", changes.append))
    await soon(api.set_config("app", CONFIGURED + "!"))
    await soon(api.register_service("shop", "127.0.0.1:80", ttl=10, metadata={"password": METADATA}))
    found.texts += [repr(each) for each in (node, service, api, EtcdSetReq("k", VALUE), changes)]
    with suppress(TwistedEtcdError):
        await soon(api.set("", VALUE))
    await soon(node.stopService())
