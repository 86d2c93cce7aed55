"""
A program that is not written in Twisted: the reactor runs in a thread, and blocking code calls etcd's service.

Run it with an etcd at hand, at http://127.0.0.1:2379 unless you name another::

    python blocking_program.py [ENDPOINTS]

``ENDPOINTS`` is a URL, or several with commas between them; the environment variable ``ETCD_ENDPOINTS`` does as well.
It puts keys under ``/examples/blocking/`` and deletes them at its end.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Thread

from twisted.internet import reactor
from twisted.internet.interfaces import IReactorFromThreads

from twisted_etcd import (
    ETCD_SERVICE,
    EmptyKey,
    EtcdClient,
    EtcdDelReq,
    EtcdGetAllReq,
    EtcdGetReq,
    EtcdService,
    EtcdSetReq,
    Node,
    TwistedEtcdError,
)

HERE = "/examples/blocking/"


@contextmanager
def etcd_node(endpoints: str) -> Iterator[Node]:
    """A node with etcd in it, which runs with the reactor in a thread. A process can do this once."""
    node = Node(reactor)
    client = EtcdClient(reactor, endpoints)
    client.setServiceParent(node)
    EtcdService(client, reactor).setServiceParent(node)
    # These three run as soon as they are started, and wait for nothing.
    node.startService()
    reactor.addSystemEventTrigger("before", "shutdown", node.stopService)
    # Signals are the main thread's: Ctrl-C raises KeyboardInterrupt there.
    thread = Thread(target=reactor.run, kwargs={"installSignalHandlers": False})
    thread.start()
    try:
        yield node
    finally:
        IReactorFromThreads(reactor).callFromThread(reactor.stop)
        thread.join()


def main(endpoints: str) -> None:
    """Nothing in here knows of Deferreds: each call blocks its thread until it is answered."""
    with etcd_node(endpoints) as node:
        call = node.from_thread.call

        call(ETCD_SERVICE, EtcdSetReq(HERE + "greeting", "hello"))
        print("got:", call(ETCD_SERVICE, EtcdGetReq(HERE + "greeting")).value)

        def put(number: int) -> bool:
            return call(ETCD_SERVICE, EtcdSetReq(f"{HERE}{number}", str(number))).success

        with ThreadPoolExecutor(4) as pool:
            done = list(pool.map(put, range(20)))
        print("put from four threads:", sum(done))

        try:
            call(ETCD_SERVICE, EtcdGetReq(""))
        except EmptyKey as error:
            print("an error arrives as what it is:", error)

        everything = call(ETCD_SERVICE, EtcdGetAllReq(HERE)).kvs
        for key in everything:
            call(ETCD_SERVICE, EtcdDelReq(key))
        print("deleted:", len(everything))


if __name__ == "__main__":
    default = os.environ.get("ETCD_ENDPOINTS", "http://127.0.0.1:2379")
    try:
        main(sys.argv[1] if len(sys.argv) > 1 else default)
    except TwistedEtcdError as problem:
        sys.exit(f"{type(problem).__name__}: {problem}")
    except KeyboardInterrupt:
        sys.exit("interrupted")
