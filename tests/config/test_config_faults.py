"""Followed configuration while etcd is away, compacted, replaced by another, or slow."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from pytest_twisted import ensureDeferred
from twisted.application.service import MultiService
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from tests.client.conftest import MakeClient
from tests.config.conftest import MakeConfig
from tests.config.test_contract_config import Heard
from tests.etcds import ONE_VERSION, FreshEtcd
from tests.said import Said
from tests.wire import Event, Listener, soon
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.config.cache import read_cache
from twisted_etcd.config.changes import ConfigChanges
from twisted_etcd.config.config import Config
from twisted_etcd.config.snapshot import ConfigSource
from twisted_etcd.embedded.process import EmbeddedEtcd
from twisted_etcd.errors import Conflict, DeadlineExceeded, OutcomeUnknown, ServiceStopped, Unavailable
from twisted_etcd.testing.cluster import EtcdCluster
from twisted_etcd.testing.proxy import FaultProxy


class Limits(msgspec.Struct):
    most: int


@pytest.fixture
def cut_off(proxy: FaultProxy, make_client: MakeClient) -> EtcdClient:
    """A client whose connections can be cut."""
    return make_client(endpoints=proxy.endpoint, request_timeout=1.0, random=lambda: 0.0)


async def cut(proxy: FaultProxy) -> None:
    await proxy.refuse()
    proxy.reset()


@ensureDeferred
async def test_what_changes_while_etcd_is_away_is_told_afterwards_and_until_then_the_last_values_are_served(
    proxy: FaultProxy, cut_off: EtcdClient, client: EtcdClient, make_config: MakeConfig, prefix: str
) -> None:
    await client.put(f"{prefix}a", "1")
    await client.put(f"{prefix}gone", "x")
    config = make_config(cut_off, types={"limits": Limits})
    await soon(config.loaded)
    heard = Heard(config)
    freshness = Event()
    stale: list[bool] = []
    config.on_stale(stale.append)
    config.on_stale(lambda _: freshness.happened())
    assert not config.stale
    await cut(proxy)
    await freshness.until(lambda: config.stale)
    for value in ("2", "3"):
        await client.put(f"{prefix}a", value)
    await client.put(f"{prefix}limits", '{"most": "bad"}')
    await client.delete(f"{prefix}gone")
    await client.put(f"{prefix}limits", '{"most": 1}')
    await client.put(f"{prefix}last", "")
    assert dict(config) == {"a": "1", "gone": "x"}
    with pytest.raises((Unavailable, OutcomeUnknown)):
        await config.set("a", "mine")
    await proxy.heal()
    await heard.until("last", b"")
    assert dict(config) == {"a": "3", "last": "", "limits": Limits(1)}
    await freshness.until(lambda: not config.stale)
    assert stale[0] is True
    assert stale[-1] is False


@ensureDeferred
async def test_a_compaction_while_it_is_away_leaves_the_difference(
    proxy: FaultProxy, cut_off: EtcdClient, client: EtcdClient, make_config: MakeConfig, prefix: str
) -> None:
    for key in ("a", "gone", "kept"):
        await client.put(prefix + key, "1")
    config = make_config(cut_off)
    await soon(config.loaded)
    heard = Heard(config)
    await cut(proxy)
    await client.put(f"{prefix}a", "2")
    await client.delete(f"{prefix}gone")
    last = await client.put(f"{prefix}a", "3")
    await client.compact(last.header.revision)
    await proxy.heal()
    await heard.until("a", b"3")
    await heard.until("gone", None)
    assert dict(config) == {"a": "3", "kept": "1"}
    changes = [(each.key, each.old_value, each.new_value) for told in heard.changes for each in told]
    assert sorted(changes) == [("a", b"1", b"3"), ("gone", b"1", None)]


@ensureDeferred
async def test_a_restart_during_an_outage_begins_with_the_cache_and_goes_on_with_etcd(  # noqa: PLR0917 - fixtures
    proxy: FaultProxy,
    cut_off: EtcdClient,
    client: EtcdClient,
    make_config: MakeConfig,
    prefix: str,
    tmp_path: Path,
    said: Said,
) -> None:
    cache = tmp_path / "config.cache"
    await client.put(f"{prefix}limits", '{"most": 1}')
    await client.put(f"{prefix}gone", "x")
    options: dict[str, Any] = {"cache": cache, "types": {"limits": Limits}, "defaults": {"d": "default"}}
    before = make_config(client, **options)
    await soon(before.loaded)
    await soon(before.set("a", "1"))
    await soon(before.stopService())
    assert cache.stat().st_mode & 0o777 == 0o600
    await cut(proxy)
    await client.put(f"{prefix}a", "2")
    await client.delete(f"{prefix}gone")

    config = make_config(cut_off, cache_after=0.05, **options)
    await soon(config.loaded)
    assert dict(config) == {"a": "1", "d": "default", "gone": "x", "limits": Limits(1)}
    assert (config.source, config.stale, config.revision) == (ConfigSource.CACHE, True, before.revision)
    assert said.count(f"is that of the cache, of revision {before.revision} until etcd answers") == 1
    heard = Heard(config)
    await proxy.heal()
    await heard.until("gone", None)
    assert dict(config) == {"a": "2", "d": "default", "limits": Limits(1)}
    assert (config.source, config.stale) == (ConfigSource.ETCD, False)
    await soon(config.stopService())
    assert not isinstance(cached := read_cache(cache, prefix.rstrip("/")), str)
    assert {key: entry.value for key, entry in cached.entries.items()} == {"a": b"2", "limits": b'{"most": 1}'}


@ensureDeferred
async def test_where_etcd_has_never_been_reached_the_defaults_serve(  # noqa: PLR0917 - fixtures
    proxy: FaultProxy, cut_off: EtcdClient, client: EtcdClient, make_config: MakeConfig, prefix: str, tmp_path: Path
) -> None:
    file = tmp_path / "defaults.yaml"
    file.write_text("limits: {most: 7}\nname: from the file\n")
    await client.put(f"{prefix}name", "from etcd")
    await cut(proxy)
    config = make_config(cut_off, defaults=file, types={"limits": Limits}, cache_after=0)
    await soon(config.loaded)
    assert (dict(config), config.source) == ({"limits": Limits(7), "name": "from the file"}, ConfigSource.DEFAULTS)
    heard = Heard(config)
    await proxy.heal()
    await heard.until("name", b"from etcd")
    assert (dict(config), config.source) == ({"limits": Limits(7), "name": "from etcd"}, ConfigSource.ETCD)


@ONE_VERSION
@ensureDeferred
async def test_a_cluster_restored_with_lower_revisions_counts_as_it_is(
    fresh_etcd: FreshEtcd, make_client: MakeClient, make_config: MakeConfig, tmp_path: Path, prefix: str
) -> None:
    data, backup, cache = tmp_path / "data", tmp_path / "backup", tmp_path / "config.cache"
    server = await fresh_etcd(data_dir=data)
    client = make_client(endpoints=server.endpoint)
    await client.put(f"{prefix}kept", "old")
    await soon(server.stopService())
    shutil.copytree(data, backup)
    server.startService()
    await soon(server.when_ready())
    config = make_config(client, cache=cache)
    await soon(config.loaded)
    heard = Heard(config)
    for number in range(5):
        await soon(config.set("lost", str(number)))
    await soon(config.set("kept", "new"))
    high = config.revision
    await soon(server.stopService())
    shutil.rmtree(data)
    shutil.copytree(backup, data)
    server.startService()
    await heard.until("kept", b"old")
    await heard.until("lost", None)
    assert dict(config) == {"kept": "old"}
    assert config.revision < high
    # What is written now is seen, though its revision is one that was there before.
    assert await soon(config.set("after", "x")) < high
    assert config["after"] == "x"
    assert [entry.value for entry in (await soon(config.history("lost"))).entries] == []


@ONE_VERSION
@ensureDeferred
async def test_a_leader_that_is_killed_loses_no_change(etcd_cluster: EtcdCluster, make_config: MakeConfig) -> None:
    async with EtcdClient(cast("Any", reactor), etcd_cluster.endpoints) as client:
        config = make_config(client)
        await soon(config.loaded)
        heard = Heard(config)
        await soon(config.set("a", "1"))
        leader = await etcd_cluster.leader()
        await leader.kill()

        async def set_at_last() -> None:
            while True:
                try:
                    await config.set("a", "2")
                except (Unavailable, OutcomeUnknown):
                    continue
                return

        await soon(Deferred.fromCoroutine(set_at_last()))
        await heard.until("a", b"2")
        assert config["a"] == "2"
        await soon(config.stopService())


@ensureDeferred
async def test_a_slow_consumer_holds_up_nobody_and_ends_where_the_others_do(
    client: EtcdClient, make_config: MakeConfig
) -> None:
    config = make_config(client)
    await soon(config.loaded)
    gate: Deferred[None] = Deferred()
    seen: list[ConfigChanges] = []

    async def slow(changes: ConfigChanges) -> None:
        seen.append(changes)
        await gate

    config.on_change(slow)
    quick = Heard(config)
    for number in range(100):
        await soon(config.set("a", str(number)))
    await quick.until("a", b"99")
    assert len(seen) == 1
    gate.callback(None)
    assert [changes["a"].new_value for changes in seen[1:]] == [b"99"]
    assert seen[0]["a"].new_value == seen[1]["a"].old_value


@ensureDeferred
async def test_a_write_without_an_answer_stays_unknown(
    proxy: FaultProxy, make_client: MakeClient, make_config: MakeConfig
) -> None:
    config = make_config(make_client(endpoints=proxy.endpoint, request_timeout=0.3))
    await soon(config.loaded)
    proxy.swallow()
    with pytest.raises(OutcomeUnknown):
        await soon(config.set("a", "1"))
    with pytest.raises(OutcomeUnknown):
        await soon(config.update({"a": "1"}, if_revision={"a": 0}))
    with pytest.raises(DeadlineExceeded):
        await soon(config.modify("a", lambda _: "1"))


@ensureDeferred
async def test_of_counts_under_resets_none_that_was_confirmed_is_lost(
    proxy: FaultProxy, make_client: MakeClient, make_config: MakeConfig
) -> None:
    configs = [make_config(make_client(endpoints=proxy.endpoint)) for _ in range(5)]
    await soon(gatherResults([config.loaded for config in configs]))
    confirmed, unknown = 0, 0

    async def count(config: Config) -> None:
        nonlocal confirmed, unknown
        for _ in range(8):
            modifying = config.modify("count", lambda text: str(int(text) + 1), default="0", attempts=1000)
            done = await modifying.addErrback(lambda failure: failure.trap(OutcomeUnknown))
            if done is OutcomeUnknown:
                unknown += 1
                continue
            confirmed += 1
            if confirmed % 5 == 0:
                await proxy.reset()

    await soon(gatherResults([Deferred.fromCoroutine(count(config)) for config in configs]))
    assert confirmed + unknown == 40
    await soon(configs[0].set("last", "x"))
    assert confirmed <= int(configs[0]["count"]) <= confirmed + unknown


@ensureDeferred
async def test_given_to_a_parent_it_starts_and_stops_with_it(etcd_server: EmbeddedEtcd, prefix: str) -> None:
    for client_first in (True, False):
        parent = MultiService()
        client = EtcdClient(cast("Any", reactor), etcd_server.endpoint)
        config = Config(client, cast("Any", reactor), prefix)
        for service in (client, config) if client_first else (config, client):
            cast("Any", service).setServiceParent(parent)
        parent.startService()
        await soon(config.loaded)
        await soon(config.set("a", "1"))
        await soon(parent.stopService())
        assert config["a"] == "1"


@ensureDeferred
async def test_stopped_while_etcd_is_silent_it_ends(make_client: MakeClient, prefix: str) -> None:
    silent = Listener()
    config = Config(make_client(endpoints=f"http://{silent.authority}"), cast("Any", reactor), prefix)
    config.startService()
    loaded = config.loaded
    await silent.peer()
    await soon(config.stopService())
    with pytest.raises(ServiceStopped):
        await soon(loaded)
    await silent.close()


@ensureDeferred
async def test_stopped_while_much_happens_nothing_is_left(
    client: EtcdClient, make_client: MakeClient, prefix: str, tmp_path: Path
) -> None:
    config = Config(make_client(), cast("Any", reactor), prefix, cache=tmp_path / "cache", quiet_min=5)
    config.startService()
    await soon(config.loaded)
    told: list[ConfigChanges] = []
    config.on_change(told.append)
    config.on_change(lambda _: Deferred(), quiet_min=0)
    waiting = config.changes().next()
    for number in range(10):
        await soon(config.set(str(number), "x"))
    writing = config.set("last", "x")
    await soon(config.stopService())
    with pytest.raises(ServiceStopped):
        await soon(waiting)
    await soon(writing)
    await client.put(f"{prefix}after", "x")
    await deferLater(cast("Any", reactor), 0)
    assert told == []
    assert "after" not in config


@ensureDeferred
async def test_an_old_revision_is_a_conflict_after_a_restart_too(
    client: EtcdClient, make_config: MakeConfig, prefix: str
) -> None:
    config = make_config(client)
    await soon(config.loaded)
    snapshot = config.snapshot()
    await client.put(f"{prefix}a", "somebody else's")
    with pytest.raises(Conflict):
        await soon(config.set("a", "mine", if_revision=snapshot.revision_of("a")))
