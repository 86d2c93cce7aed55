"""Signs of life of a quiet watch."""

from __future__ import annotations

from pytest_twisted import ensureDeferred
from twisted.internet.defer import gatherResults

from tests.client.conftest import MakeClient
from tests.etcds import FreshEtcd
from tests.wire import soon
from twisted_etcd.embedded.process import EmbeddedEtcd


async def quiet_etcd(fresh_etcd: FreshEtcd) -> EmbeddedEtcd:
    """An etcd that tells of progress every tenth of a second, in place of every ten minutes."""
    return await fresh_etcd(extra_args=("--experimental-watch-progress-notify-interval=100ms",))


@ensureDeferred
async def test_a_quiet_watch_that_asked_for_progress_hears_of_it(
    fresh_etcd: FreshEtcd, make_client: MakeClient, prefix: str
) -> None:
    server = await quiet_etcd(fresh_etcd)
    clients = [make_client(endpoints=server.endpoint, own_streams=own_streams) for own_streams in (16, 0)]
    watches = [client.watch(prefix, progress_notify=True) for client in clients]
    without = clients[0].watch(prefix)
    confirmed = await soon(gatherResults([watch.ready for watch in (*watches, without)]))
    for watch in watches:
        # Nothing happens at all.
        batch = await soon(watch.next())
        assert (batch.events, batch.revision) == ((), confirmed[0])
    elsewhere = await clients[0].put(prefix + "of no concern", "")
    for watch in watches:
        while (batch := await soon(watch.next())).revision < elsewhere.header.revision:
            assert batch.events == ()
        assert batch.revision == elsewhere.header.revision
    own = await clients[0].put(prefix, "v")
    for watch in watches:
        while not (batch := await soon(watch.next())).events:
            assert batch.revision <= own.header.revision
        assert batch.revision == own.header.revision
    # Who did not ask is told of events alone.
    assert (await soon(without.next())).revision == own.header.revision
