"""Followed configuration against real etcds."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import gatherResults

from tests.client.conftest import MakeClient
from tests.config.conftest import MakeConfig
from tests.etcds import FreshEtcd
from tests.wire import Event, soon
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.config.changes import ConfigChanges
from twisted_etcd.config.config import Config
from twisted_etcd.config.history import ConfigHistory, Older
from twisted_etcd.errors import Compacted, Conflict, FutureRevision


class Limits(msgspec.Struct):
    most: int


def shown(history: ConfigHistory) -> list[tuple[str, str | None]]:
    return [
        (entry.change_type.value, None if entry.value is None else entry.value.decode()) for entry in history.entries
    ]


class Heard:
    """What a configuration told."""

    def __init__(self, config: Config, **options: Any) -> None:  # noqa: ANN401
        self.changes: list[ConfigChanges] = []
        self._event = Event()
        config.on_change(self._told, **options)

    def _told(self, changes: ConfigChanges) -> None:
        self.changes.append(changes)
        self._event.happened()

    async def until(self, key: str, value: bytes | None) -> None:
        await self._event.until(
            lambda: any(each.key == key and each.new_value == value for changes in self.changes for each in changes)
        )


@ensureDeferred
async def test_what_was_written_is_there_to_be_read_when_the_write_is_done(
    make_config: MakeConfig, client: EtcdClient
) -> None:
    config = make_config(client, types={"limits": Limits})
    await soon(config.loaded)
    for number in range(50):
        revision = await soon(config.set("limits", Limits(number)))
        assert config["limits"] == Limits(number)
        assert config.revision >= revision == config.revision_of("limits")
    writes = [config.set(f"many/{number}", str(number)) for number in range(100)]
    await soon(gatherResults(writes))
    assert config.tree("many") == {str(number): str(number) for number in range(100)}
    assert await soon(config.delete("many/7"))
    assert "many/7" not in config
    assert not await soon(config.delete("many/7"))
    await soon(config.update({"many/1": None, "many/2": "two", "new": "x"}))
    assert ("many/1" in config, config["many/2"], config["new"]) == (False, "two", "x")


@ensureDeferred
async def test_a_write_that_depends_on_a_revision(make_config: MakeConfig, client: EtcdClient) -> None:
    config = make_config(client)
    await soon(config.loaded)
    first = await soon(config.set("a", "1", if_absent=True))
    with pytest.raises(Conflict) as conflict:
        await soon(config.set("a", "2", if_absent=True))
    assert (conflict.value.key, conflict.value.wanted, conflict.value.revision) == ("a", 0, first)
    second = await soon(config.set("a", "2", if_revision=config.revision_of("a")))
    with pytest.raises(
        Conflict, match=f"to be unchanged since revision {first}, and it was changed at revision {second}"
    ):
        await soon(config.delete("a", if_revision=first))
    with pytest.raises(Conflict) as conflict:
        await soon(config.update({"b": "x", "a": "3"}, if_revision={"b": 0, "a": first}))
    assert (conflict.value.key, "b" in config) == ("a", False)
    await soon(config.update({"b": "x"}, if_revision={"a": second, "b": 0}))
    assert await soon(config.delete("a", if_revision=second))
    with pytest.raises(Conflict, match="and it is not there: read it again, then write"):
        await soon(config.set("a", "4", if_revision=second))


@ensureDeferred
async def test_of_five_clients_that_count_at_once_no_count_is_lost(
    make_config: MakeConfig, make_client: MakeClient
) -> None:
    configs = [make_config(make_client()) for _ in range(5)]
    await soon(gatherResults([config.loaded for config in configs]))

    def more(count: str) -> str:
        return str(int(count) + 1)

    counts = [config.modify("count", more, default="0", attempts=1000) for config in configs for _ in range(10)]
    seen = await soon(gatherResults(counts))
    assert sorted(map(int, seen)) == list(range(1, 51))
    await soon(configs[0].set("seen", "by all"))
    assert configs[0]["count"] == "50"


@ensureDeferred
async def test_a_modification_may_wait_and_delete(make_config: MakeConfig, client: EtcdClient) -> None:
    config = make_config(client, types={"limits": Limits})
    await soon(config.loaded)

    async def double(limits: Limits) -> Limits | None:
        await client.get("anything")
        return Limits(limits.most * 2) if limits.most < 4 else None

    assert await soon(config.modify("limits", double, default=Limits(1))) == Limits(2)
    assert await soon(config.modify("limits", double)) == Limits(4)
    assert await soon(config.modify("limits", double)) is None
    assert "limits" not in config


@ensureDeferred
async def test_changes_of_others_are_told_together_when_it_is_quiet(
    make_config: MakeConfig, make_client: MakeClient, client: EtcdClient, prefix: str
) -> None:
    config = make_config(make_client())
    await soon(config.loaded)
    at_once, gathered = Heard(config), Heard(config, quiet_min=0.1)
    for number in range(20):
        await client.put(f"{prefix}a", str(number), batch=False)
    await client.put(f"{prefix}b", "last")
    await gathered.until("b", b"last")
    for heard in (at_once, gathered):
        seen: bytes | None = None
        for changes in heard.changes:
            if "a" in changes:
                assert changes["a"].old_value == seen
                seen = changes["a"].new_value
        assert seen == b"19"
    assert len(gathered.changes) < 5


@ensureDeferred
async def test_changes_are_taken_by_a_loop(make_config: MakeConfig, client: EtcdClient) -> None:
    config = make_config(client)
    await soon(config.loaded)
    async with config.changes(prefix="a") as stream:
        await soon(config.set("b", "1"))
        await soon(config.set("a/b", "1"))
        changes = await soon(stream.next())
        assert [(each.key, each.old_value, each.new_value) for each in changes] == [("a/b", None, b"1")]


# --- the past -------------------------------------------------------------------------------------------------------


@ensureDeferred
async def test_a_history_has_every_life_of_a_key(make_config: MakeConfig, client: EtcdClient) -> None:
    config = make_config(client)
    await soon(config.loaded)
    for value in ("1", "2", None, "3", None, "4", "5"):
        if value is None:
            await soon(config.delete("a"))
        else:
            await soon(config.set("a", value))
        await soon(config.set("other", str(value)))
    expected = [
        ("modified", "5"), ("created", "4"), ("deleted", None), ("created", "3"),
        ("deleted", None), ("modified", "2"), ("created", "1"),
    ]  # fmt: skip
    history = await soon(config.history("a"))
    assert shown(history) == expected
    # Others may have compacted the etcd that they share.
    assert history.older in (Older.NOTHING, Older.COMPACTED)
    revisions = [entry.revision for entry in history.entries]
    assert revisions == sorted(revisions, reverse=True)
    assert [entry.version for entry in history.entries] == [2, 1, 0, 1, 0, 2, 1]
    for limit in range(1, 7):
        part = await soon(config.history("a", limit=limit))
        assert (shown(part), part.older) == (expected[:limit], Older.MORE)
    assert (await soon(config.history("a", limit=7))).entries == history.entries
    await soon(config.delete("a"))
    assert shown(await soon(config.history("a"))) == [("deleted", None), *expected]
    assert "5" not in repr(history.entries[0]).replace(str(history.entries[0].revision), "")


@ensureDeferred
async def test_a_deletion_that_nobody_here_has_seen_is_found(
    make_config: MakeConfig, client: EtcdClient, prefix: str
) -> None:
    await client.put(f"{prefix}a", "1")
    await client.delete(f"{prefix}a")
    for number in range(300):
        await client.put(f"{prefix}other", str(number), batch=False)
    config = make_config(client)
    await soon(config.loaded)
    history = await soon(config.history("a"))
    assert shown(history) == [("deleted", None), ("created", "1")]
    searched = await soon(config.history("a", search=200))
    assert (searched.entries, searched.older) == ((), Older.UNSEARCHED)


@ensureDeferred
async def test_a_history_ends_where_etcd_was_compacted(
    fresh_etcd: FreshEtcd, make_client: MakeClient, make_config: MakeConfig
) -> None:
    server = await fresh_etcd()
    client = make_client(endpoints=server.endpoint)
    config = make_config(client)
    await soon(config.loaded)
    nothing = await soon(config.history("never"))
    assert (nothing.entries, nothing.older) == ((), Older.NOTHING)
    for value in ("1", "2", "3"):
        await soon(config.set("a", value))
    assert (await soon(config.history("a"))).older is Older.NOTHING
    await soon(config.delete("a"))
    born = await soon(config.set("a", "4"))
    await client.compact(born - 3)
    history = await soon(config.history("a"))
    assert (shown(history), history.older) == (
        [("created", "4"), ("deleted", None), ("modified", "3"), ("modified", "2")],
        Older.COMPACTED,
    )
    last = await soon(config.set("a", "5"))
    await client.compact(last)
    history = await soon(config.history("a"))
    assert (shown(history), history.older) == ([("modified", "5")], Older.COMPACTED)
    nothing = await soon(config.history("never"))
    assert (nothing.entries, nothing.older) == ((), Older.COMPACTED)


@ensureDeferred
async def test_it_is_read_as_it_was_and_set_back(make_config: MakeConfig, client: EtcdClient) -> None:
    config = make_config(client, types={"limits": Limits}, defaults={"d": "x"})
    await soon(config.loaded)
    before = await soon(config.set("limits", Limits(1)))
    other = await soon(config.set("other", "x"))
    await soon(config.set("limits", Limits(2)))
    then = await soon(config.at(before))
    assert (dict(then), then.revision) == ({"d": "x", "limits": Limits(1)}, before)
    revision = await soon(config.rollback("limits", other))
    assert (config["limits"], config.revision_of("limits")) == (Limits(1), revision)
    # It is so already.
    assert await soon(config.rollback("limits", before)) == revision
    await soon(config.rollback("other", before))
    assert "other" not in config
    with pytest.raises(FutureRevision):
        await soon(config.at(revision + 1000))
    await client.compact(revision)
    with pytest.raises(Compacted):
        await soon(config.at(before))
    with pytest.raises(Compacted):
        await soon(config.rollback("limits", before))


@ensureDeferred
async def test_many_values_are_followed(make_config: MakeConfig, client: EtcdClient, prefix: str) -> None:
    await soon(gatherResults([client.put(f"{prefix}{number:04}", "x" * 100) for number in range(2000)]))
    config = make_config(client)
    await soon(config.loaded)
    assert len(config) == 2000
    then = await soon(config.at(config.revision))
    assert dict(then) == dict(config.snapshot())
