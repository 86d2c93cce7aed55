"""A short outage of the long kind."""

from __future__ import annotations

from pytest_twisted import ensureDeferred
from twisted.internet import reactor

from tests.outage.outage import Outage, Scale
from twisted_etcd.embedded.binary import distro_binary


@ensureDeferred
async def test_a_short_outage_keeps_every_promise() -> None:
    said: list[str] = []
    binary = distro_binary()
    assert binary is not None
    outage = Outage(reactor, binary, Scale(seconds=9, registrations=60, keys=20, discoverers=6), said.append)
    await outage.run()
    assert any("restored from a snapshot" in line for line in said)
    assert outage.figures["requests for it"] > 0
