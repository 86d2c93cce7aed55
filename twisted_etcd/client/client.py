"""The client: etcd's v3 API as Deferreds."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Literal, TypeVar, cast

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, fail
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from twisted_etcd.client.auth import Auth
from twisted_etcd.client.backlog import MAX_BACKLOG
from twisted_etcd.client.batching import PUTS, READS, Batcher
from twisted_etcd.client.calls import INSTEAD, Calls, check_timeout, stopped_before
from twisted_etcd.client.carriers import OWN_STREAMS, Carriers
from twisted_etcd.client.cluster import Cluster
from twisted_etcd.client.feed import WatchFeed
from twisted_etcd.client.kv import (
    DeleteOptions,
    KeyOptions,
    PutOptions,
    RangeOptions,
    delete_request,
    is_time,
    put_request,
    range_request,
    to_int,
)
from twisted_etcd.client.lease import Lease, LeaseKeeper
from twisted_etcd.client.maintenance import Maintenance
from twisted_etcd.client.membership import Membership
from twisted_etcd.client.op import txn_request
from twisted_etcd.client.rangereader import RangeReader
from twisted_etcd.client.scan import PAGE, Scan
from twisted_etcd.client.watch import Watch, WatchCallback
from twisted_etcd.errors import EmptyKey, InvalidSettings, ServiceStopped
from twisted_etcd.gateway.endpoints import parse_endpoints
from twisted_etcd.gateway.endpointset import EndpointStatus
from twisted_etcd.gateway.gateway import (
    CONNECT_TIMEOUT,
    MAX_CONNECTIONS,
    REQUEST_TIMEOUT,
    Credentials,
    Gateway,
    IGatewayReactor,
)
from twisted_etcd.gateway.tls import TLSSettings
from twisted_etcd.keys import KeyRange, to_bytes
from twisted_etcd.moment import Moment
from twisted_etcd.reactor_thread import check_reactor_thread
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.common import Message
from twisted_etcd.schema.kv import (
    CompactionRequest,
    CompactionResponse,
    Compare,
    DeleteRangeResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    RequestOp,
    TxnResponse,
)
from twisted_etcd.schema.lease import (
    LeaseGrantResponse,
    LeaseLeasesRequest,
    LeaseLeasesResponse,
    LeaseRevokeRequest,
    LeaseRevokeResponse,
    LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
)
from twisted_etcd.schema.rpcs import RPC
from twisted_etcd.schema.watch import FilterType, WatchCreateRequest

if TYPE_CHECKING:
    from typing_extensions import Unpack

RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT", bound=Message)
ResultT = TypeVar("ResultT")

#: Seconds that ``stopService`` gives leases to be revoked and watches to be cancelled, unless told otherwise.
STOP_TIMEOUT = 5.0


class EtcdClient(Service):
    """
    An etcd cluster, reached over its v3 JSON gateway from inside the reactor.

    It can be used as soon as it is made, and connects when it is first needed. End it with ``stopService``: give it a
    parent service, or use it as ``async with EtcdClient(…) as client``.

    Every request fails with one of: an :class:`~twisted_etcd.errors.EtcdError` (what etcd answered),
    :class:`~twisted_etcd.errors.Unavailable` (certainly not applied), :class:`~twisted_etcd.errors.OutcomeUnknown` (a
    write that may have been applied), :class:`~twisted_etcd.errors.DeadlineExceeded` (a read without an answer),
    :class:`~twisted_etcd.errors.ServiceStopped`. Cancelling its Deferred closes its connection.

    Keys and values go in as ``bytes`` or ``str`` (UTF-8) and come out as ``bytes``. Answers are etcd's own messages,
    of :mod:`twisted_etcd.schema`.

    :param reactor: gives connections, name resolution and time; any of Twisted's does.
    :param endpoints: ``http://host:2379``, several of them in one string with commas, or a list.
    :param username: a user of etcd's authentication; with ``password``.
    :param tls: how to speak TLS with ``https`` endpoints; endpoints without a scheme are ``https`` where it is given.
    :param connect_timeout: seconds that a connection may take to come about.
    :param request_timeout: seconds that a request may take in all, unless it brings its own ``timeout``.
    :param max_connections: how many requests are on the wire to one endpoint at a time; the rest wait within their
        deadline.
    :param batch: whether gets and puts that come while others are under way travel together.
    :param own_streams: how many watches get connections of their own before the others share one.
    :param auto_sync: seconds between two looks at etcd's list of members, as :meth:`sync` takes; 0 for none.
    :param stop_timeout: seconds that ``stopService`` gives leases to be revoked and watches to be cancelled.
    :param revoke_leases: whether ``stopService`` revokes the leases of :meth:`lease`.
    :param random: gives numbers from 0 up to 1; for the waits between attempts.
    :ivar batch: as it was given.
    :ivar auth: users, roles and permissions.
    :ivar cluster: the members of the cluster.
    :ivar maintenance: what looks after members: status, alarms, snapshots, ….
    :raises InvalidSettings: where one of these cannot be used; the error names it.
    :raises TypeError: where one is of the wrong type; the error names it.

    All of it is for the reactor's thread, and raises :exc:`RuntimeError` in another one; there, use
    ``threads.blockingCallFromThread`` of Twisted's, or ``node.from_thread``.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        endpoints: str | Sequence[str] = "http://127.0.0.1:2379",
        *,
        username: str | None = None,
        password: str | None = None,
        tls: TLSSettings | None = None,
        connect_timeout: float = CONNECT_TIMEOUT,
        request_timeout: float = REQUEST_TIMEOUT,
        max_connections: int = MAX_CONNECTIONS,
        batch: bool = True,
        own_streams: int = OWN_STREAMS,
        auto_sync: float = 0.0,
        stop_timeout: float = STOP_TIMEOUT,
        revoke_leases: bool = True,
        random: Callable[[], float] = random.random,
    ) -> None:
        if not IReactorTime.providedBy(reactor):
            msg = f"the first argument of EtcdClient must be the reactor, not {type(reactor).__name__}"
            raise TypeError(msg)
        for what, seconds in (("connect_timeout", connect_timeout), ("request_timeout", request_timeout)):
            if not is_time(seconds, what) or seconds == 0:
                msg = f"{what} must be more than 0 seconds, and finite, not {seconds!r}"
                raise InvalidSettings(msg)
        for what, seconds in (("stop_timeout", stop_timeout), ("auto_sync", auto_sync)):
            if not is_time(seconds, what):
                msg = f"{what} must be at least 0 seconds, and finite, not {seconds!r}"
                raise InvalidSettings(msg)
        for what, count, least in (("max_connections", max_connections, 1), ("own_streams", own_streams, 0)):
            if to_int(count, what) < least:
                msg = f"{what} must be at least {least}, not {count!r}"
                raise InvalidSettings(msg)
        if not isinstance(batch, bool):
            msg = f"batch must be True or False, not {type(batch).__name__}"
            raise TypeError(msg)
        if not isinstance(tls, TLSSettings | None):
            msg = f"tls must be TLSSettings(...), not {type(tls).__name__}"
            raise TypeError(msg)
        self._reactor = reactor
        self._stop_timeout = stop_timeout
        self._revoke_leases = revoke_leases
        scheme = "https" if tls else "http"
        self._gateway = Gateway(
            # Twisted's own type of its reactor is none that another interface could name.
            cast("IGatewayReactor", reactor),
            parse_endpoints(endpoints, default_scheme=scheme),
            tls=tls or TLSSettings(),
            credentials=_credentials(username, password),
            connect_timeout=connect_timeout,
            request_timeout=request_timeout,
            max_connections=max_connections,
            random=random,
        )
        self.batch = batch
        self._reads = Batcher(self._gateway, reactor, READS)
        # Apart: with a linearizable one in it, a transaction is so as a whole.
        self._serializable_reads = Batcher(self._gateway, reactor, READS)
        self._puts = Batcher(self._gateway, reactor, PUTS)
        self._leases = LeaseKeeper(self._gateway, reactor)
        self._carriers = Carriers(self._gateway, reactor, own_streams)
        self._membership = Membership(self._gateway, reactor, auto_sync)
        self._reader = RangeReader(partial(self._gateway.unary, rpcs.RANGE), reactor, random)
        self._watches: set[Watch] = set()
        self._stopping: Moment[None] | None = None
        self._stop_asked_for: Moment[None] = Moment()
        self._calls = Calls(self._gateway, scheme, lambda: self._stopping is not None)
        self.auth = Auth(self._calls)
        self.cluster = Cluster(self._calls, reactor)
        self.maintenance = Maintenance(self._calls, reactor)

    def __repr__(self) -> str:
        return f"<EtcdClient of {', '.join(each.url for each in self.endpoints)}>"

    @property
    def request_timeout(self) -> float:
        """Seconds that a request may take in all, unless it brings its own."""
        return self._gateway.request_timeout

    @property
    def stop_timeout(self) -> float:
        """Seconds that its end may take while etcd does not answer."""
        return self._stop_timeout

    @property
    def reactor(self) -> IReactorTime:
        """The reactor that it was made with: the clock of what is built on it."""
        return self._reactor

    @property
    def stopping(self) -> Deferred[None]:
        """A new Deferred that fires as soon as :meth:`stopService` is called, before it ends anything."""
        return self._stop_asked_for.wait()

    @property
    def endpoints(self) -> tuple[EndpointStatus, ...]:
        """What it knows of each endpoint: its URL, whether it serves, and if not, why."""
        return self._gateway.endpoint_statuses

    def sync(self, *, timeout: float | None = None) -> Deferred[tuple[EndpointStatus, ...]]:
        """
        Take the client URLs of the cluster's members for endpoints, in place of those that were given
        (``Cluster.MemberList``).

        Learners and members that were never started are left out, and so are addresses at which something else answers
        than this cluster's gateway; those are named in the log. A member that is away is taken. Streams that are open
        stay where they are.

        :param timeout: seconds for the list; ``request_timeout`` where it is None. New addresses are then tried, which
            takes ``connect_timeout`` seconds at the most.
        :return: fires with the endpoints that are used from then on.
        :raises Unavailable: where none of the addresses leads to a member; the endpoints stay as they are.
        """
        check_timeout(timeout)
        check_reactor_thread("EtcdClient.sync", INSTEAD)
        return Deferred.fromCoroutine(self._membership.sync(timeout))

    @property
    def connection_count(self) -> int:
        """How many sockets it has open."""
        return self._gateway.connection_count

    def call(
        self,
        rpc: RPC[RequestT, ResponseT],
        request: RequestT,
        *,
        timeout: float | None = None,
        endpoint: str | None = None,
    ) -> Deferred[ResponseT]:
        """
        Any unary call of etcd's, of the table :mod:`twisted_etcd.schema.rpcs`, for those without a method.

        :param timeout: seconds for the whole of it; ``request_timeout`` where it is None.
        :param endpoint: the URL of the one member that it is for; None for whichever serves.
        :raises TypeError: where the request is not the call's, or the call is a stream.
        :raises ValueError: for a timeout that is not more than 0, or an endpoint that is no URL of a member.
        """
        return self._calls.call(rpc, request, timeout=timeout, endpoint=endpoint)

    # --- key-values -------------------------------------------------------------------------------------------------

    def get(
        self, key: str | bytes, *, timeout: float | None = None, batch: bool = True, **options: Unpack[RangeOptions]
    ) -> Deferred[RangeResponse]:
        """
        Read a key or a range (``KV.Range``): ``response.kvs``, ``response.count``, ``response.more``.

        :param batch: whether it may travel with other gets, as one read-only transaction. Ranges of keys, and what a
            key was at another revision, travel alone in any case.
        :param options: see :class:`~twisted_etcd.client.kv.RangeOptions`. Without ``serializable=True`` the answer is
            linearizable.
        """
        request = range_request(key, **options) if options else RangeRequest(key=to_bytes(key))
        if not self._calls.may_ask(rpcs.RANGE, timeout):
            return fail(stopped_before(rpcs.RANGE))
        if not batch or not self.batch or request.range_end or request.revision:
            return self._gateway.unary(rpcs.RANGE, request, timeout=timeout)
        batcher = self._serializable_reads if request.serializable else self._reads
        return batcher.request(request, len(request.key), timeout or self._gateway.request_timeout)

    def put(
        self,
        key: str | bytes,
        value: str | bytes,
        *,
        timeout: float | None = None,
        batch: bool = True,
        **options: Unpack[PutOptions],
    ) -> Deferred[PutResponse]:
        """
        Put a key (``KV.Put``).

        :param batch: whether it may travel with other puts, as one transaction: they share a revision then. Puts to
            one key that may do so are applied in the order in which they were asked for.
        :param options: see :class:`~twisted_etcd.client.kv.PutOptions`.
        """
        request = (
            put_request(key, value, **options)
            if options
            else PutRequest(key=to_bytes(key), value=to_bytes(value, "value"))
        )
        if not self._calls.may_ask(rpcs.PUT, timeout):
            return fail(stopped_before(rpcs.PUT))
        if not batch or not self.batch:
            return self._gateway.unary(rpcs.PUT, request, timeout=timeout)
        size = len(request.key) + len(request.value)
        return self._puts.request(request, size, timeout or self._gateway.request_timeout)

    def delete(
        self, key: str | bytes, *, timeout: float | None = None, **options: Unpack[DeleteOptions]
    ) -> Deferred[DeleteRangeResponse]:
        """
        Delete a key or a range (``KV.DeleteRange``): ``response.deleted`` says how many there were.

        :param options: see :class:`~twisted_etcd.client.kv.DeleteOptions`.
        """
        return self.call(rpcs.DELETE_RANGE, delete_request(key, **options), timeout=timeout)

    def txn(
        self,
        compare: Iterable[Compare] = (),
        success: Iterable[RequestOp] = (),
        failure: Iterable[RequestOp] = (),
        *,
        timeout: float | None = None,
    ) -> Deferred[TxnResponse]:
        """
        A transaction (``KV.Txn``): where all comparisons hold the operations of ``success`` are done, else those of
        ``failure``, all at one revision. Make them with :mod:`twisted_etcd.client.compare` and
        :mod:`twisted_etcd.client.op`.
        """
        return self.call(rpcs.TXN, txn_request(compare, success, failure), timeout=timeout)

    def compact(
        self, revision: int, *, physical: bool = False, timeout: float | None = None
    ) -> Deferred[CompactionResponse]:
        """
        Drop the history before a revision (``KV.Compact``).

        :param physical: answer only when the space has been given back.
        """
        return self.call(
            rpcs.COMPACT, CompactionRequest(revision=to_int(revision, "revision"), physical=physical), timeout=timeout
        )

    def scan(
        self,
        key: str | bytes,
        *,
        page: int = PAGE,
        revision: int = 0,
        keys_only: bool = False,
        serializable: bool = False,
        timeout: float | None = None,
        **keys: Unpack[KeyOptions],
    ) -> Scan:
        """
        Read a large range in pages, all of one revision, in the order of the keys.

        :param page: key-values in a page.
        :param revision: the revision to read; 0 for that of the first page.
        :param timeout: seconds for each page.
        """
        if to_int(page, "page") < 1:
            msg = f"page must be at least 1, not {page!r}"
            raise ValueError(msg)
        keys_meant = KeyRange.of(key, **keys)
        request = RangeRequest(
            key=keys_meant.key,
            range_end=keys_meant.range_end,
            limit=page,
            revision=to_int(revision, "revision"),
            keys_only=keys_only,
            serializable=serializable,
        )

        def read(page_request: RangeRequest) -> Deferred[RangeResponse]:
            return self.call(rpcs.RANGE, page_request, timeout=timeout)

        return Scan(read, request)

    # --- leases -----------------------------------------------------------------------------------------------------

    def lease(self, ttl: int, *, lease_id: int = 0, timeout: float | None = None) -> Deferred[Lease]:
        """
        Grant a lease and keep it alive until it is revoked or lost.

        Where nobody learns of it, because the Deferred was cancelled, the time was over or the client stopped, it is
        revoked in the background; unless it has an id of yours, which may be somebody else's lease.

        :param ttl: seconds; etcd may grant more.
        :param lease_id: the id that it is to have; 0 for a random one.
        :raises LeaseExists: a lease with that id is there already.
        """
        return self._grant("EtcdClient.lease", self._leases.grant, ttl, lease_id, timeout)

    def lease_grant(self, ttl: int, *, lease_id: int = 0, timeout: float | None = None) -> Deferred[LeaseGrantResponse]:
        """
        Grant a lease (``Lease.LeaseGrant``) that nobody keeps alive: it ends after its TTL.

        As with :meth:`lease`, none is left that nobody learns of.

        :param ttl: seconds; etcd may grant more.
        :param lease_id: the id that it is to have; 0 for a random one.
        :raises LeaseExists: a lease with that id is there already.
        """
        return self._grant("EtcdClient.lease_grant", self._leases.grant_unkept, ttl, lease_id, timeout)

    def _grant(
        self,
        who: str,
        grant: Callable[[int, int, float | None], Deferred[ResultT]],
        ttl: int,
        lease_id: int,
        timeout: float | None,
    ) -> Deferred[ResultT]:
        check_timeout(timeout)
        check_reactor_thread(who, INSTEAD)
        if self._stopping is not None:
            return fail(stopped_before(rpcs.LEASE_GRANT))
        return grant(ttl, lease_id, timeout)

    def lease_revoke(self, lease_id: int, *, timeout: float | None = None) -> Deferred[LeaseRevokeResponse]:
        """
        Revoke any lease by its id (``Lease.LeaseRevoke``), which deletes its keys.

        :raises LeaseNotFound: there is no such lease.
        """
        return self.call(rpcs.LEASE_REVOKE, LeaseRevokeRequest(ID=to_int(lease_id, "lease_id")), timeout=timeout)

    def lease_time_to_live(
        self, lease_id: int, *, keys: bool = False, timeout: float | None = None
    ) -> Deferred[LeaseTimeToLiveResponse]:
        """
        What is left of a lease (``Lease.LeaseTimeToLive``): a TTL of -1 where there is no such lease.

        :param keys: name the keys that live by it.
        """
        request = LeaseTimeToLiveRequest(ID=to_int(lease_id, "lease_id"), keys=keys)
        return self.call(rpcs.LEASE_TIME_TO_LIVE, request, timeout=timeout)

    def leases(self, *, timeout: float | None = None) -> Deferred[LeaseLeasesResponse]:
        """The ids of all leases there are (``Lease.LeaseLeases``)."""
        return self.call(rpcs.LEASE_LEASES, LeaseLeasesRequest(), timeout=timeout)

    # --- watches ----------------------------------------------------------------------------------------------------

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
        """
        Follow a key or a range (``Watch.Watch``), through broken connections and failing members.

        :param callback: takes each batch; without it use ``watch.next()`` or ``async for``.
        :param start_revision: the first revision that is wanted; 0 for all that comes after ``watch.ready``. Who has
            read the keys at a revision and wants what comes after it gives that revision, and passes over what
            happened in it: of the very one to which its history is compacted, etcd may have forgotten deletions
            (3.4.23 and 3.5.1 have).
        :param prev_kv: each event brings what was there before.
        :param filters: kinds of events that are not wanted.
        :param progress_notify: etcd sends a batch without events, about every ten minutes, while nothing happens.
        :param max_backlog: events that may wait for their consumer before etcd has to wait.
        :param on_compacted: what happens where etcd has compacted the revision that the watch needs next, because it
            was cut off, or its consumer slow, for long. ``"fail"``: it ends with ``Compacted``. ``"resync"``: the keys
            are read again, and the difference comes as one batch marked ``resync``. For that the watch reads the keys
            of its range as it begins and remembers them, so that it can tell of deletions; those of keys that were
            gone before it could read them are not told.
        :raises TypeError: for an option of the wrong type, which it names.
        :raises ValueError: for one that cannot be used.
        """
        check_reactor_thread("EtcdClient.watch", INSTEAD)
        if callback is not None and not callable(callback):
            msg = f"callback must be a function that takes a WatchBatch, not {type(callback).__name__}"
            raise TypeError(msg)
        for what, number, least in (("start_revision", start_revision, 0), ("max_backlog", max_backlog, 1)):
            if to_int(number, what) < least:
                msg = f"{what} must be at least {least}, not {number!r}"
                raise ValueError(msg)
        if on_compacted not in ("fail", "resync"):
            msg = f"on_compacted must be 'fail' or 'resync', not {on_compacted!r}"
            raise ValueError(msg)
        keys_meant = KeyRange.of(key, **keys)
        request = WatchCreateRequest(
            key=keys_meant.key,
            range_end=keys_meant.range_end,
            start_revision=start_revision,
            prev_kv=prev_kv,
            filters=tuple(FilterType(each) for each in filters),
            progress_notify=progress_notify,
        )
        what = repr(keys_meant.key) + (" and on" if keys_meant.range_end else "")
        watch = Watch(what, callback, max_backlog, self._watches)
        if self._stopping is not None:
            watch.finished(Failure(ServiceStopped("the client was stopped before the watch began")))
            return watch
        if not keys_meant.key:
            # etcd would take it for the key of one zero byte, and the watch would see nothing, for ever.
            watch.finished(Failure(EmptyKey(EmptyKey.grpc_code, EmptyKey.messages[0])))
            return watch
        self._watches.add(watch)
        feed = WatchFeed(self._carriers, self._reader, request, watch, resync=on_compacted == "resync")
        watch.begin(feed)
        feed.begin()
        return watch

    # --- the beginning and the end ----------------------------------------------------------------------------------

    def startService(self) -> None:
        """
        Note that its parent has started; it connects when it is first needed.

        :raises ServiceStopped: it was stopped, and cannot be used again.
        """
        if self._stopping is not None:
            msg = f"{self!r} was stopped and cannot be started again: make a new one"
            raise ServiceStopped(msg)
        super().startService()  # type: ignore[no-untyped-call]

    def stopService(self) -> Deferred[None]:
        """
        Revoke its leases, cancel its watches, end its requests with :class:`~twisted_etcd.errors.ServiceStopped`, and
        close its connections. It cannot be used again.

        :return: fires when nothing is left: no socket, and no delayed call. With etcd away that takes at most
            ``stop_timeout`` seconds.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        if self._stopping is None:
            # Set before anybody is told: what they do then must find the client stopped.
            self._stopping = Moment()
            self._stop_asked_for.fire(None)
            Deferred.fromCoroutine(self._stop()).addCallbacks(self._stopping.fire, self._stopping.fail)
        return self._stopping.wait()

    async def _stop(self) -> None:
        reason = Failure(ServiceStopped("the client was stopped"))
        self._membership.stop()
        self.cluster.stop()
        ending = [watch.end(reason) for watch in tuple(self._watches)]
        ending.append(self._leases.stop(revoke=self._revoke_leases, timeout=self._stop_timeout))
        ending.append(self.maintenance.stop())
        # Whatever is not done by then is cut off, which ends it.
        bound = self._reactor.callLater(self._stop_timeout, self._gateway.stop)
        await DeferredList(ending)
        await self._carriers.stop()
        if bound.active():
            bound.cancel()
        await self._gateway.stop()
        for batcher in (self._reads, self._serializable_reads, self._puts):
            batcher.stop()

    async def __aenter__(self) -> EtcdClient:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # A coroutine that is thrown away, as at the end of a program that was interrupted, can wait for nothing.
        if exc_type is not GeneratorExit:
            await self.stopService()


def _credentials(username: str | None, password: str | None) -> Credentials | None:
    # etcd would repeat a number in its answer.
    for what, text in (("username", username), ("password", password)):
        if not isinstance(text, str | None):
            msg = f"{what} must be a str, not {type(text).__name__}"
            raise TypeError(msg)
    if username is None and password is None:
        return None
    if username is None or password is None:
        msg = "username and password belong together: give both or neither"
        raise InvalidSettings(msg)
    return Credentials(username, password)
