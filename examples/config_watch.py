"""
Configuration by messages: load, set and follow a value, in the style of ``inlineCallbacks``.

Run it with an etcd at hand, at http://127.0.0.1:2379 unless you name another::

    python config_watch.py [ENDPOINTS]

``ENDPOINTS`` is a URL, or several with commas between them; the environment variable ``ETCD_ENDPOINTS`` does as well.
It sets the configuration ``examples/database`` and deletes it at its end.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred, DeferredQueue, inlineCallbacks
from twisted.internet.interfaces import IReactorCore, IReactorTime

from twisted_etcd import ConfigWatch, EtcdApi, EtcdClient, EtcdConfigChangedMsg, EtcdService, Node, TwistedEtcdError

KEY = "examples/database"


def text(value: bytes | None) -> str:
    """A value in words."""
    return "(not set)" if value is None else value.decode()


@inlineCallbacks
def show_configuration(etcd: EtcdApi) -> Generator[Deferred[Any], Any, None]:
    """Set a value, and see each change of it arrive."""
    yield etcd.set_config(KEY, "db-1.example:5432")
    value: bytes | None = yield etcd.load_config(KEY)
    print("loaded:", text(value))

    # The callback is told each change; here it only puts it into a queue.
    changes: DeferredQueue[EtcdConfigChangedMsg] = DeferredQueue()
    watch: ConfigWatch = yield etcd.watch_config(KEY, changes.put)
    print("followed from:", text(watch.value))

    yield etcd.set_config(KEY, "db-2.example:5432")
    yield etcd.set_config(KEY, "db-3.example:5432")
    # A configuration value is a key like any other, under the prefix /config.
    yield etcd.delete(f"/config/{KEY}")
    for _ in range(3):
        change: EtcdConfigChangedMsg = yield changes.get()
        print(f"{change.key} was {change.change_type.value}: {text(change.old_value)} -> {text(change.new_value)}")
    print("the watch knows it too:", text(watch.value))
    yield watch.stop()


@inlineCallbacks
def main(reactor: IReactorTime, endpoints: str) -> Generator[Deferred[Any], Any, None]:
    """Make a node with etcd in it."""
    node = Node(reactor)
    client = EtcdClient(reactor, endpoints)
    client.setServiceParent(node)
    EtcdService(client, reactor).setServiceParent(node)
    node.startService()
    # At the end of main, and on Ctrl-C: the node stops its services in the opposite order, the client last.
    IReactorCore(reactor).addSystemEventTrigger("before", "shutdown", node.stopService)
    try:
        yield node.when_started()
        yield show_configuration(EtcdApi(node))
    except TwistedEtcdError as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    default = os.environ.get("ETCD_ENDPOINTS", "http://127.0.0.1:2379")
    task.react(main, [sys.argv[1] if len(sys.argv) > 1 else default])
