"""A part of etcd's keys, as if it were all there is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, TypeVar, cast

from msgspec.structs import replace
from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime

from twisted_etcd.client.backlog import MAX_BACKLOG
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.client.kv import KeyOptions, PutOptions, RangeOptions
from twisted_etcd.client.lease import Lease
from twisted_etcd.client.position import WatchBatch
from twisted_etcd.client.prefixing import Prefixing
from twisted_etcd.client.watch import Watch, WatchCallback
from twisted_etcd.errors import EmptyKey, InvalidSettings
from twisted_etcd.gateway.endpointset import EndpointStatus
from twisted_etcd.keys import KeyRange, to_bytes
from twisted_etcd.schema.common import Message
from twisted_etcd.schema.kv import PutResponse, RangeResponse
from twisted_etcd.schema.lease import LeaseGrantResponse
from twisted_etcd.schema.rpcs import RPC
from twisted_etcd.schema.watch import FilterType

if TYPE_CHECKING:
    from typing_extensions import Unpack

RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT", bound=Message)


class Namespace(EtcdClient):
    """
    A client whose keys are all below a prefix: it puts the prefix before each key that goes to etcd, and takes it off
    each key that comes back, in transactions, events and calls of the lock and election services too.

    It is a view of a client and can stand wherever one is asked for, also where another namespace is to be made of it.
    Of what is not below the prefix nothing can be read, written or watched through it: ``from_key`` and
    ``prefix=True`` with an empty key end where the prefix ends.

    What has no keys, it shares with the client: leases, their ids, revisions, compaction, ``auth`` (whose permissions
    name keys as etcd has them), ``cluster``, ``maintenance``. It has no life of its own either: all that was begun
    through it ends with the client, and its own ``stopService`` ends nothing.

    :param client: a client, or another namespace.
    :param prefix: before all keys; as it is, so give the ``/`` that you may want at its end.
    :ivar prefix: as bytes.
    :raises InvalidSettings: where the prefix is empty.
    :raises TypeError: where one of the two is of the wrong type.
    """

    def __init__(self, client: EtcdClient, prefix: str | bytes) -> None:
        if not hasattr(client, "watch"):
            msg = f"the first argument of Namespace must be an EtcdClient, not {type(client).__name__}"
            raise TypeError(msg)
        self.prefix = to_bytes(prefix, "prefix")
        if not self.prefix:
            msg = "the prefix of a namespace is empty, which is the client itself; give a prefix such as 'app/'"
            raise InvalidSettings(msg)
        self._client = client
        self._prefixing = Prefixing(self.prefix)
        self.batch = client.batch
        self.auth = client.auth
        self.cluster = client.cluster
        self.maintenance = client.maintenance

    def __repr__(self) -> str:
        return f"<Namespace {self.prefix!r} of {self._client!r}>"

    @property
    def client(self) -> EtcdClient:
        """What it is a view of."""
        return self._client

    @property
    def request_timeout(self) -> float:
        """See :attr:`EtcdClient.request_timeout`."""
        return self._client.request_timeout

    @property
    def stop_timeout(self) -> float:
        """See :attr:`EtcdClient.stop_timeout`."""
        return self._client.stop_timeout

    @property
    def reactor(self) -> IReactorTime:
        """See :attr:`EtcdClient.reactor`."""
        return self._client.reactor

    @property
    def stopping(self) -> Deferred[None]:
        """See :attr:`EtcdClient.stopping`: the client's."""
        return self._client.stopping

    @property
    def endpoints(self) -> tuple[EndpointStatus, ...]:
        """See :attr:`EtcdClient.endpoints`."""
        return self._client.endpoints

    @property
    def connection_count(self) -> int:
        """See :attr:`EtcdClient.connection_count`."""
        return self._client.connection_count

    def sync(self, *, timeout: float | None = None) -> Deferred[tuple[EndpointStatus, ...]]:
        """See :meth:`EtcdClient.sync`."""
        return self._client.sync(timeout=timeout)

    # --- what has keys ----------------------------------------------------------------------------------------------

    def call(
        self,
        rpc: RPC[RequestT, ResponseT],
        request: RequestT,
        *,
        timeout: float | None = None,
        endpoint: str | None = None,
    ) -> Deferred[ResponseT]:
        """See :meth:`EtcdClient.call`; the request's keys are those below the prefix."""
        try:
            request = self._prefixing.inward(request)
        except EmptyKey as error:
            return fail(error)
        return self._client.call(rpc, request, timeout=timeout, endpoint=endpoint).addCallback(self._prefixing.outward)

    def get(
        self, key: str | bytes, *, timeout: float | None = None, batch: bool = True, **options: Unpack[RangeOptions]
    ) -> Deferred[RangeResponse]:
        """See :meth:`EtcdClient.get`."""
        try:
            keys = self._keys(key, cast("KeyOptions", options))
        except EmptyKey as error:
            return fail(error)
        getting = self._client.get(keys.key, timeout=timeout, batch=batch, **options)
        return getting.addCallback(self._prefixing.found)

    def put(
        self,
        key: str | bytes,
        value: str | bytes,
        *,
        timeout: float | None = None,
        batch: bool = True,
        **options: Unpack[PutOptions],
    ) -> Deferred[PutResponse]:
        """See :meth:`EtcdClient.put`."""
        try:
            whole = self._prefixing.key(to_bytes(key))
        except EmptyKey as error:
            return fail(error)
        putting = self._client.put(whole, value, timeout=timeout, batch=batch, **options)
        return putting.addCallback(self._prefixing.written)

    def watch(
        self,
        key: str | bytes,
        *,
        callback: WatchCallback | None = None,
        start_revision: int = 0,
        prev_kv: bool = False,
        filters: Iterable[FilterType] = (),
        progress_notify: bool = False,
        max_backlog: int = MAX_BACKLOG,
        on_compacted: Literal["fail", "resync"] = "fail",
        **keys: Unpack[KeyOptions],
    ) -> Watch:
        """See :meth:`EtcdClient.watch`."""
        try:
            whole = self._keys(key, keys).key
        except EmptyKey:
            # The client ends such a watch with the same error.
            whole = b""
        watch = self._client.watch(
            whole,
            callback=callback,
            start_revision=start_revision,
            prev_kv=prev_kv,
            filters=filters,
            progress_notify=progress_notify,
            max_backlog=max_backlog,
            on_compacted=on_compacted,
            **keys,
        )
        watch.translate(self._told)
        return watch

    def _told(self, batch: WatchBatch) -> WatchBatch:
        return replace(batch, events=self._prefixing.events(batch.events))

    def _keys(self, key: str | bytes, options: KeyOptions) -> KeyRange:
        """The keys as etcd has them; of the options the end of the range is left, as etcd has it."""
        keys = self._prefixing.keys(
            KeyRange.of(
                key,
                prefix=options.pop("prefix", False),
                from_key=options.pop("from_key", False),
                range_end=options.pop("range_end", None),
            )
        )
        if keys.range_end:
            options["range_end"] = keys.range_end
        return keys

    # --- what has none ----------------------------------------------------------------------------------------------

    def lease(self, ttl: int, *, lease_id: int = 0, timeout: float | None = None) -> Deferred[Lease]:
        """See :meth:`EtcdClient.lease`; kept alive, and revoked at its end, by the client."""
        return self._client.lease(ttl, lease_id=lease_id, timeout=timeout)

    def lease_grant(self, ttl: int, *, lease_id: int = 0, timeout: float | None = None) -> Deferred[LeaseGrantResponse]:
        """See :meth:`EtcdClient.lease_grant`."""
        return self._client.lease_grant(ttl, lease_id=lease_id, timeout=timeout)

    def startService(self) -> None:
        """Nothing begins with it."""
        Service.startService(self)

    def stopService(self) -> Deferred[None]:
        """
        Nothing ends with it: stop the client.

        :return: has fired.
        """
        Service.stopService(self)
        return succeed(None)


def place_of(client: EtcdClient) -> tuple[EtcdClient, bytes]:
    """The client that is under all namespaces, and what these put before each key together."""
    prefix = b""
    while isinstance(client, Namespace):
        prefix = client.prefix + prefix
        client = client.client
    return client, prefix
