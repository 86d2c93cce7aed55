"""
Key-values with ``EtcdClient``: put, get, prefixes, a transaction, a lease, a large range in pages, a watch, and errors.

Run it with an etcd at hand, at http://127.0.0.1:2379 unless you name another::

    python key_values.py [ENDPOINTS]

``ENDPOINTS`` is a URL, or several with commas between them; the environment variable ``ETCD_ENDPOINTS`` does as well.
It puts keys under ``/examples/key-values/`` and deletes them at its end.
"""

from __future__ import annotations

import os
import sys

from twisted.internet import task
from twisted.internet.interfaces import IReactorTime

from twisted_etcd import Compacted, EtcdClient, EtcdError, EventType, FutureRevision, RequestFailed, compare, op

HERE = "/examples/key-values/"


async def put_and_get(etcd: EtcdClient) -> None:
    """Keys and values go in as text or bytes, and come out as bytes."""
    await etcd.put(HERE + "colour", "green")
    answer = await etcd.get(HERE + "colour")
    print("colour is", answer.kvs[0].value.decode())

    missing = await etcd.get(HERE + "shape")
    print("shape is there:", bool(missing.kvs))


async def prefixes(etcd: EtcdClient) -> None:
    """All keys that begin alike, at once."""
    for name in ("apple", "pear", "plum"):
        await etcd.put(f"{HERE}fruit/{name}", f"a {name}")
    fruit = await etcd.get(HERE + "fruit/", prefix=True)
    print("fruit:", ", ".join(kv.value.decode() for kv in fruit.kvs))
    deleted = await etcd.delete(HERE + "fruit/p", prefix=True)
    print("deleted:", deleted.deleted)


async def compare_and_set(etcd: EtcdClient) -> None:
    """Change a key only if it is still what it was believed to be."""
    for believed in ("green", "green", "blue"):
        answer = await etcd.txn(
            compare=[compare.value(HERE + "colour", "=", believed)],
            success=[op.put(HERE + "colour", "blue")],
            failure=[op.get(HERE + "colour")],
        )
        print(f"{believed} becomes blue:", answer.succeeded)


async def lease(etcd: EtcdClient) -> None:
    """A key that is gone soon after its owner is: the client keeps the lease alive until it is revoked."""
    lease = await etcd.lease(10)
    await etcd.put(HERE + "present", "yes", lease=lease.id)
    print(f"present, for {lease.ttl} s unless it is kept alive")
    await lease.revoke()
    print("present after the lease:", (await etcd.get(HERE + "present", count_only=True)).count)


async def scan(etcd: EtcdClient) -> None:
    """A range of any size, in pages that are all of one revision; 64 puts are under way together."""
    pending = [etcd.put(f"{HERE}many/{number:03}", str(number)) for number in range(64)]
    for put in pending:
        await put
    total = 0
    async for kv in etcd.scan(HERE + "many/", prefix=True, page=10):
        total += int(kv.value)
    print("the sum of many:", total)


async def watch(etcd: EtcdClient) -> None:
    """What happens to a key from now on, with what was there before."""
    async with etcd.watch(HERE + "colour", prev_kv=True) as watch:
        await watch.ready
        await etcd.put(HERE + "colour", "red")
        await etcd.delete(HERE + "colour")
        async for batch in watch:
            for event in batch.events:
                before = event.prev_kv.value.decode() if event.prev_kv else "nothing"
                print("watched:", before, "->", event.kv.value.decode() or "deleted")
            if batch.events[-1].type is EventType.DELETE:
                break


async def errors(etcd: EtcdClient) -> None:
    """Each error of etcd's has a class of its own; those where no answer came are ``RequestFailed``."""
    try:
        await etcd.put("", "nothing can be put here")
    except EtcdError as error:
        print(f"{type(error).__name__}: {error}")
    try:
        await etcd.get(HERE + "colour", revision=10**15)
    except (FutureRevision, Compacted) as error:
        print(f"{type(error).__name__}: {error}")


async def main(reactor: IReactorTime, endpoints: str) -> None:
    """All of it, one after the other."""
    async with EtcdClient(reactor, endpoints) as etcd:
        try:
            for example in (put_and_get, prefixes, compare_and_set, lease, scan, watch, errors):
                await example(etcd)
            await etcd.delete(HERE, prefix=True)
        except RequestFailed as error:
            # Nobody answered; of a write the error's class says whether it may have been applied.
            sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    default = os.environ.get("ETCD_ENDPOINTS", "http://127.0.0.1:2379")
    task.react(main, [sys.argv[1] if len(sys.argv) > 1 else default])
