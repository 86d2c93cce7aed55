"""Scans: what every server and every stand-in for one must do."""

from __future__ import annotations

from random import Random

import pytest
from pytest_twisted import ensureDeferred

from twisted_etcd.client import op
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.client.scan import Scan
from twisted_etcd.errors import Compacted, DeadlineExceeded

KEYS = 12


async def fill(client: EtcdClient, prefix: str, value: str = "v") -> int:
    done = await client.txn(success=[op.put(f"{prefix}{n:02}", value) for n in range(KEYS)])
    return done.header.revision


async def pages_of(scan: Scan) -> list[list[bytes]]:
    pages = []
    while page := await scan.next():
        pages.append([kv.key for kv in page])
    return pages


def names(prefix: str) -> list[bytes]:
    return [f"{prefix}{n:02}".encode() for n in range(KEYS)]


@pytest.mark.parametrize("page", [1, 2, 5, KEYS - 1, KEYS, KEYS + 1, 1000])
@ensureDeferred
async def test_every_key_comes_once_and_in_order_whatever_the_page(client: EtcdClient, prefix: str, page: int) -> None:
    await fill(client, prefix)
    pages = await pages_of(client.scan(prefix, prefix=True, page=page))
    assert [key for part in pages for key in part] == names(prefix)
    assert [len(part) for part in pages[:-1]] == [page] * (len(pages) - 1)


@ensureDeferred
async def test_async_for_gives_key_values(client: EtcdClient, prefix: str) -> None:
    await fill(client, prefix)
    assert [kv.key async for kv in client.scan(prefix, prefix=True, page=5)] == names(prefix)


@ensureDeferred
async def test_an_empty_range_is_one_empty_page(client: EtcdClient, prefix: str) -> None:
    scan = client.scan(prefix, prefix=True)
    assert await scan.next() == ()
    assert await scan.next() == ()
    assert scan.revision > 0
    assert [kv async for kv in client.scan(prefix, prefix=True)] == []


@ensureDeferred
async def test_all_pages_are_of_one_revision_while_others_write(client: EtcdClient, prefix: str) -> None:
    revision = await fill(client, prefix)
    scan = client.scan(prefix, prefix=True, page=2)
    found = []
    while page := await scan.next():
        found += [(kv.key, kv.value) for kv in page]
        # Behind the page, in it, and a key that was not there.
        await client.txn(
            success=[
                op.put(f"{prefix}{KEYS - 1:02}", "new"),
                op.delete(page[0].key),
                op.put(page[-1].key + b"-new", "new"),
            ]
        )
    assert found == [(key, b"v") for key in names(prefix)]
    assert scan.revision == revision


@ensureDeferred
async def test_a_scan_reads_the_revision_and_the_range_that_were_asked_for(client: EtcdClient, prefix: str) -> None:
    revision = await fill(client, prefix, "old")
    await fill(client, prefix, "new")
    old = client.scan(prefix + "03", range_end=prefix + "06", page=2, revision=revision, serializable=True)
    assert [(kv.key, kv.value) async for kv in old] == [(name, b"old") for name in names(prefix)[3:6]]
    assert old.revision == revision
    keys = client.scan(prefix + "10", from_key=True, page=1, keys_only=True)
    first = await keys.next()
    assert [(kv.key, kv.value) for kv in first] == [(names(prefix)[10], b"")]
    assert [kv.key async for kv in client.scan(prefix + "05")] == [names(prefix)[5]]


@ensureDeferred
async def test_a_compaction_in_mid_scan_is_told(client: EtcdClient, prefix: str) -> None:
    await fill(client, prefix)
    scan = client.scan(prefix, prefix=True, page=5)
    await scan.next()
    newer = await client.put(prefix + "later", "")
    await client.compact(newer.header.revision)
    for _ in range(2):
        with pytest.raises(Compacted):
            await scan.next()


@ensureDeferred
async def test_a_page_that_failed_can_be_asked_for_again(client: EtcdClient, prefix: str) -> None:
    await fill(client, prefix)
    scan = client.scan(prefix, prefix=True, page=5)
    before = [kv.key for kv in await scan.next()]
    asked = scan.next()
    asked.addErrback(lambda failure: failure.value)
    asked.cancel()
    assert isinstance(await asked, Exception)
    assert before + [kv.key async for kv in scan] == names(prefix)


@ensureDeferred
async def test_the_timeout_is_that_of_a_page(client: EtcdClient, prefix: str) -> None:
    scan = client.scan(prefix, prefix=True, timeout=0.000001)
    with pytest.raises(DeadlineExceeded, match=r"KV\.Range got no answer within 1e-06 s"):
        await scan.next()


@ensureDeferred
async def test_a_scan_is_the_range_for_any_keys_and_pages(client: EtcdClient, prefix: str) -> None:
    base = prefix.encode()
    random = Random(1)
    for _ in range(20):
        # Few letters, so that keys are often beginnings of each other.
        suffixes = {
            bytes(random.choices(b"\x00\x01a\xff", k=random.randint(1, 3))) for _ in range(random.randint(0, 12))
        }
        page = random.randint(1, 5)
        await client.delete(base, prefix=True)
        if suffixes:
            await client.txn(success=[op.put(base + suffix, suffix) for suffix in suffixes])
        found = [(kv.key, kv.value) async for kv in client.scan(base, prefix=True, page=page)]
        assert found == [(base + suffix, suffix) for suffix in sorted(suffixes)], (suffixes, page)
