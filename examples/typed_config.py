"""
Configuration as objects: defaults, a bad value that harms nobody, compare-and-set, changes told together, history.

Run it with an etcd at hand, at http://127.0.0.1:2379 unless you name another::

    python typed_config.py [ENDPOINTS]

``ENDPOINTS`` is a URL, or several with commas between them; the environment variable ``ETCD_ENDPOINTS`` does as well.
It keeps its configuration below ``/config/examples/typed``, and deletes it at its end.
"""

from __future__ import annotations

import os
import sys

import msgspec
from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorCore, IReactorTime

from twisted_etcd import BadValue, Config, Conflict, EtcdClient, TwistedEtcdError

PREFIX = "/config/examples/typed"


class Limits(msgspec.Struct):
    """What is kept as one YAML value at ``limits``."""

    requests: int
    burst: int = 10


class Database(msgspec.Struct):
    """What is kept in several keys below ``database``."""

    url: str
    pool_size: int = 5


def report(error: BadValue) -> None:
    """Say what is wrong with a value, which the error does not show."""
    print("bad value:", error.key, "at", error.place, "-", error.why)


async def show(config: Config, client: EtcdClient) -> None:
    """Use it."""
    limits = config.bind("limits", Limits, format="yaml", default=Limits(requests=1))
    database = config.bind_tree("database", Database)
    print("from the defaults:", database.value, limits.value)

    # What was set is there as soon as the write is done.
    await config.set("limits", "requests: 100")
    await config.update({"database/url": "db-1.example", "database/pool-size": 20})
    print("set:", database.value, limits.value)

    # Somebody else writes nonsense. The next write is seen here after it.
    await client.put(f"{PREFIX}/limits", "requests: many")
    await config.set("note", "x")
    print("still good:", limits.value)

    # Compare-and-set, by the revision that was seen.
    snapshot = config.snapshot()
    await config.set("note", "y")
    try:
        await config.set("note", "z", if_revision=snapshot.revision_of("note"))
    except Conflict as conflict:
        print("conflict:", conflict.key, conflict.revision == config.revision_of("note"))
    # Read, write, and again where somebody was quicker.
    print("modified:", await config.modify("counter", lambda text: str(int(text) + 1), default="41"))

    # Changes that come together are told together, each key once.
    async with config.changes(prefix="database", quiet_min=0.05) as stream:
        for size in ("30", "40", "50"):
            await config.set("database/pool-size", size)
        for change in await stream.next():
            print(change.key, change.change_type.value, change.old_value, "->", change.new_value)

    history = await config.history("database/pool-size", limit=2)
    print("history:", [entry.value for entry in history.entries], history.older.value)
    before = await config.at(snapshot.revision)
    print("as it was:", before["database/pool-size"])


async def main(reactor: IReactorTime, endpoints: str) -> None:
    """Connect, and leave nothing behind."""
    try:
        async with EtcdClient(reactor, endpoints) as client:
            IReactorCore(reactor).addSystemEventTrigger("before", "shutdown", client.stopService)
            # Configuration with defaults begins without etcd as well; this example is nothing without it.
            await client.get(PREFIX, count_only=True)
            defaults = {"database": {"url": "localhost"}}
            async with Config(client, reactor, PREFIX, defaults=defaults, on_error=report) as config:
                await show(config, client)
            await client.delete(f"{PREFIX}/", prefix=True)
    except TwistedEtcdError as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    default = os.environ.get("ETCD_ENDPOINTS", "http://127.0.0.1:2379")
    task.react(
        lambda reactor, endpoints: Deferred.fromCoroutine(main(reactor, endpoints)),
        [sys.argv[1] if len(sys.argv) > 1 else default],
    )
