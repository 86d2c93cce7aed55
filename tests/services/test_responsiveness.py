"""The headline: while etcd answers late, the node goes on, and requests wait together, not one after the other."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, cast
from urllib.parse import urlsplit

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.internet.defer import gatherResults

from tests.messaging.common import Echo, Echoed, Echoer
from tests.services.world import MakeWorld, World
from tests.wire import ClockedReactor, soon
from twisted_etcd.embedded.process import EmbeddedEtcd
from twisted_etcd.services.messages import ETCD_SERVICE, EtcdGetReq, EtcdSetReq, EtcdUnwatchReq, EtcdUnwatchResp
from twisted_etcd.testing.proxy import FaultProxy

LATE = 0.5


class LateEtcd:
    """An etcd whose answers are held back until the test lets half a second pass."""

    def __init__(self, server: EmbeddedEtcd) -> None:
        at = urlsplit(server.endpoint)
        self._clock = ClockedReactor()
        self.proxy = FaultProxy(cast("Any", self._clock), str(at.hostname), at.port or 0)
        self.proxy.startService()
        self.proxy.delay(LATE)

    async def until_it_holds(self, answers: int) -> None:
        """Until so many answers of etcd's, each of another connection, wait at the proxy."""
        await self._clock.until_waiting(answers)

    def half_a_second_passes(self) -> None:
        self._clock.advance(LATE)


@pytest.fixture
def late_etcd(etcd_server: EmbeddedEtcd) -> Generator[LateEtcd]:
    etcd = LateEtcd(etcd_server)
    yield etcd
    pytest_twisted.blockon(etcd.proxy.stopService())


@pytest.fixture
def late_world(late_etcd: LateEtcd, make_world: MakeWorld) -> World:
    made: World = pytest_twisted.blockon(make_world(late_etcd.proxy.endpoint))
    return made


@ensureDeferred
async def test_other_services_answer_while_etcd_is_late(late_world: World, late_etcd: LateEtcd, prefix: str) -> None:
    late_world.add(Echoer())
    getting = late_world.caller.call(ETCD_SERVICE, EtcdGetReq(prefix + "k"))
    await late_etcd.until_it_holds(1)
    answer = await soon(late_world.caller.call("Echoer", Echo("at once")))
    assert answer == Echoed("at once")
    assert late_etcd.proxy.answers == 0
    assert not getting.called
    late_etcd.half_a_second_passes()
    assert (await soon(getting)).value is None


@ensureDeferred
async def test_etcd_service_itself_takes_messages_while_etcd_is_late(
    late_world: World, late_etcd: LateEtcd, prefix: str
) -> None:
    getting = late_world.caller.call(ETCD_SERVICE, EtcdGetReq(prefix + "k"))
    await late_etcd.until_it_holds(1)
    assert await late_world.caller.ask(EtcdUnwatchReq(7)) == EtcdUnwatchResp(success=False)
    assert not getting.called
    late_etcd.half_a_second_passes()
    await soon(getting)


@ensureDeferred
async def test_a_hundred_gets_take_one_delay_together(
    late_etcd: LateEtcd, make_world: MakeWorld, world: World, prefix: str
) -> None:
    # Each a request of its own, so that there are as many answers.
    late_world = await make_world(late_etcd.proxy.endpoint, client={"batch": False})
    await world.caller.ask(EtcdSetReq(prefix + "k", "v"))
    getting = [late_world.caller.call(ETCD_SERVICE, EtcdGetReq(prefix + "k")) for _ in range(100)]
    # etcd has been asked, and has answered, a hundred times before the first answer is let through
    await late_etcd.until_it_holds(100)
    assert late_etcd.proxy.answers == 0
    late_etcd.half_a_second_passes()
    answers = await soon(gatherResults(getting))
    assert [answer.value for answer in answers] == [b"v"] * 100
