"""The members of the cluster: etcd's Cluster service."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar
from urllib.parse import urlsplit

from twisted.internet.defer import CancelledError, Deferred, DeferredLock, fail
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from twisted_etcd.client.calls import Calls, stopped_before
from twisted_etcd.client.kv import to_int
from twisted_etcd.errors import InvalidSettings
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.cluster import (
    MemberAddRequest,
    MemberAddResponse,
    MemberListRequest,
    MemberListResponse,
    MemberPromoteRequest,
    MemberPromoteResponse,
    MemberRemoveRequest,
    MemberRemoveResponse,
    MemberUpdateRequest,
    MemberUpdateResponse,
)
from twisted_etcd.schema.common import Message
from twisted_etcd.schema.rpcs import RPC

RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT", bound=Message)

#: Seconds between the answer to a change and the next one: etcd says that it is done before it takes another.
_PAUSE = 0.2
_SCHEMES = ("http", "https", "unix", "unixs")


class Cluster:
    """
    The members of the cluster, as ``client.cluster``.

    A member is named by its id, a number that :meth:`members` shows. Changes go through the quorum, whichever member
    is asked. etcd refuses those that would endanger the cluster with ``UnhealthyCluster`` or ``NotEnoughStarted``,
    unless it runs with ``--strict-reconfig-check=false``.

    Of several changes at a time, from whichever clients, etcd drops all but one without a word, and often one that
    follows another at once. Those of one client wait for each other, and a moment longer. After an ``OutcomeUnknown``
    look at :meth:`members` before you ask again.

    Every method takes ``timeout``, the seconds for all of it (``request_timeout`` of the client where it is None), and
    fails as every request of the client does. The endpoints of the client stay as they are: see
    :meth:`~twisted_etcd.client.client.EtcdClient.sync`.
    """

    def __init__(self, calls: Calls, clock: IReactorTime) -> None:
        self._calls = calls
        self._clock = clock
        self._turn = DeferredLock()
        #: When the next change may be asked for, by the clock.
        self._next = 0.0
        self._pause: Deferred[None] | None = None

    def members(
        self, *, linearizable: bool = True, endpoint: str | None = None, timeout: float | None = None
    ) -> Deferred[MemberListResponse]:
        """
        All members: ``response.members`` (``Cluster.MemberList``).

        :param linearizable: as the quorum has it. With False the member that is asked says what it knows, also without
            a quorum, which can be old. Before etcd 3.5 they do so in any case.
        :param endpoint: the URL of the member to ask; None for whichever serves.
        """
        if not isinstance(linearizable, bool):
            msg = f"linearizable must be True or False, not {type(linearizable).__name__}"
            raise TypeError(msg)
        request = MemberListRequest(linearizable=linearizable)
        return self._calls.call(rpcs.MEMBER_LIST, request, timeout=timeout, endpoint=endpoint)

    def member_add(
        self, peer_urls: str | Iterable[str], *, learner: bool = False, timeout: float | None = None
    ) -> Deferred[MemberAddResponse]:
        """
        Make room for a member: ``response.member`` has its id (``Cluster.MemberAdd``).

        Then start it, with ``--initial-cluster-state=existing`` and an ``--initial-cluster`` of ``response.members``.
        Until it runs it counts for the quorum, which a learner does not.

        :param peer_urls: where the others will reach it.
        :param learner: it gets no vote before :meth:`member_promote`.
        :raises PeerURLExists: a member has one of these URLs.
        :raises InvalidSettings: one of them cannot be used.
        :raises UnhealthyCluster: not all members are connected.
        :raises TooManyLearners: etcd takes one at a time, unless told otherwise.
        """
        if not isinstance(learner, bool):
            msg = f"learner must be True or False, not {type(learner).__name__}"
            raise TypeError(msg)
        request = MemberAddRequest(peerURLs=_urls(peer_urls), isLearner=learner)
        return self._change(rpcs.MEMBER_ADD, request, timeout)

    def member_update(
        self, member_id: int, peer_urls: str | Iterable[str], *, timeout: float | None = None
    ) -> Deferred[MemberUpdateResponse]:
        """
        Say where a member is reached by the others from now on (``Cluster.MemberUpdate``).

        :param peer_urls: all of its URLs; they take the place of those before.
        :raises MemberNotFound: no member has that id.
        :raises PeerURLExists: another member has one of these URLs.
        :raises InvalidSettings: one of them cannot be used. (etcd would take it, and lose the member.)
        """
        request = MemberUpdateRequest(ID=to_int(member_id, "member_id"), peerURLs=_urls(peer_urls))
        return self._change(rpcs.MEMBER_UPDATE, request, timeout)

    def member_promote(self, member_id: int, *, timeout: float | None = None) -> Deferred[MemberPromoteResponse]:
        """
        Give a learner its vote (``Cluster.MemberPromote``).

        :raises MemberNotFound: no member has that id.
        :raises MemberNotLearner: it has a vote.
        :raises LearnerNotReady: it has not caught up with the leader yet: ask again.
        """
        request = MemberPromoteRequest(ID=to_int(member_id, "member_id"))
        return self._change(rpcs.MEMBER_PROMOTE, request, timeout)

    def member_remove(self, member_id: int, *, timeout: float | None = None) -> Deferred[MemberRemoveResponse]:
        """
        Take a member out of the cluster, whose process then ends (``Cluster.MemberRemove``).

        :raises MemberNotFound: no member has that id.
        :raises UnhealthyCluster: the others would be no quorum without it.
        :raises NotEnoughStarted: likewise.
        """
        request = MemberRemoveRequest(ID=to_int(member_id, "member_id"))
        return self._change(rpcs.MEMBER_REMOVE, request, timeout)

    def _change(self, rpc: RPC[RequestT, ResponseT], request: RequestT, timeout: float | None) -> Deferred[ResponseT]:
        if not self._calls.may_ask(rpc, timeout):
            return fail(stopped_before(rpc))
        seconds = self._calls.gateway.request_timeout if timeout is None else timeout
        deadline = self._clock.seconds() + seconds

        def change() -> Deferred[ResponseT]:
            return Deferred.fromCoroutine(self._in_turn(rpc, request, seconds, deadline))

        return self._turn.run(change)

    async def _in_turn(
        self, rpc: RPC[RequestT, ResponseT], request: RequestT, seconds: float, deadline: float
    ) -> ResponseT:
        pause = min(self._next, deadline) - self._clock.seconds()
        if pause > 0 and not self._calls.stopped():
            self._pause = deferLater(self._clock, pause)
            try:
                await self._pause
            except CancelledError:
                if self._calls.stopped():
                    raise stopped_before(rpc) from None
                raise
        try:
            return await self._calls.call(rpc, request, timeout=seconds, deadline=deadline)
        finally:
            self._next = self._clock.seconds() + _PAUSE

    def stop(self) -> None:
        """End what waits for its turn."""
        if self._pause is not None:
            self._pause.cancel()


def _urls(given: str | Iterable[str]) -> tuple[str, ...]:
    urls = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, Iterable) else (given,)
    for url in urls:
        if not isinstance(url, str):
            msg = f"peer_urls must be URLs such as 'http://10.0.0.4:2380', not {type(url).__name__}"
            raise TypeError(msg)
        _check_url(url)
    if not urls:
        msg = "peer_urls is empty: name where the other members reach it, for example http://10.0.0.4:2380"
        raise InvalidSettings(msg)
    return urls


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        fine = parts.scheme in _SCHEMES and parts.hostname and parts.port and parts.path in {"", "/"}
    except ValueError:
        fine = False
    # What has a user in it is not shown.
    if not fine or "@" in url:
        shown = "one with a user in it" if "@" in url else repr(url)
        msg = f"peer_urls holds {shown}, by which no member is reached: write it as http://HOST:PORT"
        raise InvalidSettings(msg)
