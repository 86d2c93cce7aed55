"""A client whose etcd is the test: every request waits until the test answers it."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from twisted_etcd.client.client import EtcdClient
from twisted_etcd.client.lease import Lease
from twisted_etcd.client.position import WatchBatch
from twisted_etcd.client.watch import Watch
from twisted_etcd.schema.common import ResponseHeader
from twisted_etcd.schema.kv import (
    DeleteRangeResponse,
    Event,
    EventType,
    KeyValue,
    PutResponse,
    RangeResponse,
    ResponseOp,
    TxnResponse,
)


class Asked:
    """
    A request that somebody waits for.

    :ivar what: the method of the client.
    :ivar cancelled: whether nobody waits for it any more.
    """

    def __init__(self, what: str, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        self.what = what
        self.args = args
        self.options = options
        self.cancelled = False
        self.answer: Deferred[Any] = Deferred(self._cancel)

    def _cancel(self, _: Deferred[Any]) -> None:
        self.cancelled = True

    def fails(self, error: Exception) -> None:
        self.answer.errback(Failure(error))

    def __repr__(self) -> str:
        return f"<{self.what}{self.args}{self.options}>"


class ScriptedKeeper:
    """What a lease asks of its keeper."""

    def __init__(self, client: ScriptedClient) -> None:
        self._client = client
        self.seconds = 30.0

    def seconds_left(self, _lease: Lease) -> float:
        return self.seconds

    def keepalive_once(self, lease: Lease) -> Deferred[int]:
        return self._client.ask("keepalive_once", lease.id)

    def revoke(self, lease: Lease, _timeout: float | None) -> Deferred[None]:
        def revoked(_: None) -> None:
            lease.ended("it was revoked")

        def left(failure: Failure) -> Failure:
            lease.ended("it could not be revoked")
            return failure

        revoking: Deferred[None] = self._client.ask("revoke", lease.id)
        return revoking.addCallbacks(revoked, left)


class ScriptedFeed:
    def __init__(self, client: ScriptedClient) -> None:
        self._client = client
        self.stopped = False

    def pause(self) -> None:
        raise NotImplementedError

    def resume(self) -> None:
        raise NotImplementedError

    def stop(self) -> Deferred[None]:
        self.stopped = True
        return self._client.ask("stop of a watch")


class ScriptedClient:
    """
    Looks like a client to those who use one.

    :param clock: the reactor of what is built on it.
    :ivar reactor: likewise.
    :ivar asked: what was asked and not yet taken by the test.
    :ivar watches: every watch there was, with its options and its feed.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self.reactor = clock or Clock()
        self.asked: list[Asked] = []
        self.watches: list[tuple[Watch, dict[str, Any], ScriptedFeed]] = []
        self.keeper = ScriptedKeeper(self)
        self.request_timeout = self.stop_timeout = 5.0
        self._lease_ids = iter(range(1, 1000))

    @property
    def client(self) -> EtcdClient:
        return cast("EtcdClient", self)

    def ask(self, what: str, *args: Any, **options: Any) -> Deferred[Any]:  # noqa: ANN401
        asked = Asked(what, args, options)
        self.asked.append(asked)
        return asked.answer

    def take(self, what: str) -> Asked:
        """The oldest request that was not taken yet; it must be of that kind."""
        assert self.asked, f"nothing was asked, and {what} was expected"
        asked = self.asked.pop(0)
        assert asked.what == what, asked
        return asked

    # --- the client -------------------------------------------------------------------------------------------------

    def get(self, key: str | bytes, **options: Any) -> Deferred[RangeResponse]:  # noqa: ANN401
        return self.ask("get", key, **options)

    def put(self, key: str, value: bytes, **options: Any) -> Deferred[PutResponse]:  # noqa: ANN401
        return self.ask("put", key, value, **options)

    def delete(self, key: str, **options: Any) -> Deferred[DeleteRangeResponse]:  # noqa: ANN401
        return self.ask("delete", key, **options)

    def txn(self, **options: Any) -> Deferred[TxnResponse]:  # noqa: ANN401
        return self.ask("txn", **options)

    def lease(self, ttl: int) -> Deferred[Lease]:
        return self.ask("lease", ttl)

    def watch(self, key: str | bytes, **options: Any) -> Watch:  # noqa: ANN401
        watch = Watch(repr(key), None, 10_000)
        feed = ScriptedFeed(self)
        watch.begin(feed)
        self.watches.append((watch, options, feed))
        return watch

    # --- answers ----------------------------------------------------------------------------------------------------

    def new_lease(self, ttl: int = 30) -> Lease:
        return Lease(next(self._lease_ids), ttl, cast("Any", self.keeper))


def header(revision: int) -> ResponseHeader:
    return ResponseHeader(cluster_id=1, member_id=1, revision=revision)


def kv(key: str, value: str, mod_revision: int, lease: int = 0) -> KeyValue:
    return KeyValue(key=key.encode(), value=value.encode(), mod_revision=mod_revision, lease=lease)


def found(revision: int, *kvs: KeyValue) -> RangeResponse:
    return RangeResponse(header=header(revision), kvs=kvs, count=len(kvs))


def put_event(key: str, value: str, revision: int) -> Event:
    return Event(kv=kv(key, value, revision))


def delete_event(key: str, revision: int) -> Event:
    return Event(type=EventType.DELETE, kv=KeyValue(key=key.encode(), mod_revision=revision))


def batch(*events: Event) -> WatchBatch:
    return WatchBatch(events, events[-1].kv.mod_revision)


def put_of(asked: Asked) -> tuple[list[str], set[int]]:
    """The keys and the leases of the puts in a transaction."""
    puts = [operation.request_put for operation in asked.options["success"]]
    return [put.key.decode() for put in puts], {put.lease for put in puts}


def removed_by(asked: Asked) -> tuple[list[str], set[int]]:
    """The keys that a transaction deletes, and the leases by which it does."""
    inner = [operation.request_txn for operation in asked.options["success"]]
    keys = [each.success[0].request_delete_range.key.decode() for each in inner]
    return keys, {each.compare[0].lease for each in inner}


def done(asked: Asked, revision: int, *there: KeyValue) -> None:
    """Answer a transaction of puts, removals and readings; what is there is what is read."""
    by_key = {each.key: each for each in there}
    responses = []
    for operation in asked.options["success"]:
        if operation.request_range is not None:
            kvs = tuple(each for key, each in by_key.items() if key == operation.request_range.key)
            responses.append(ResponseOp(response_range=RangeResponse(kvs=kvs, count=len(kvs))))
        elif operation.request_put is not None:
            responses.append(ResponseOp(response_put=PutResponse()))
        else:
            responses.append(ResponseOp(response_txn=TxnResponse(succeeded=True)))
    asked.answer.callback(TxnResponse(header=header(revision), succeeded=True, responses=tuple(responses)))
