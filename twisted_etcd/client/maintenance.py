"""What looks after members: etcd's Maintenance service."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from os import PathLike
from typing import Literal

from twisted.internet.defer import Deferred, DeferredList, fail, gatherResults
from twisted.internet.interfaces import IReactorThreads, IReactorTime

from twisted_etcd.client.calls import Calls, stopped_before
from twisted_etcd.client.kv import to_int
from twisted_etcd.client.snapshot import Snapshot, SnapshotDownload
from twisted_etcd.client.snapshotfile import SnapshotFile, snapshot_path
from twisted_etcd.errors import InvalidSettings
from twisted_etcd.gateway.endpoints import Endpoint, parse_endpoint
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.cluster import MemberListRequest
from twisted_etcd.schema.maintenance import (
    AlarmAction,
    AlarmRequest,
    AlarmResponse,
    AlarmType,
    DefragmentRequest,
    DefragmentResponse,
    DowngradeAction,
    DowngradeRequest,
    DowngradeResponse,
    HashKVRequest,
    HashKVResponse,
    HashRequest,
    HashResponse,
    MoveLeaderRequest,
    MoveLeaderResponse,
    StatusRequest,
    StatusResponse,
)

#: Alarms that can be raised and taken back, in a word.
Alarm = Literal["NOSPACE", "CORRUPT"]


class Maintenance:
    """
    What looks after members, as ``client.maintenance``.

    Calls that concern one member take its URL as ``endpoint``: one of the client's, or any client URL of a member, as
    :meth:`Cluster.members` shows them. They go there and nowhere else. ``response.header.member_id`` says who answered.

    Every method takes ``timeout``, the seconds for all of it (``request_timeout`` of the client where it is None), and
    fails as every request of the client does.
    """

    def __init__(self, calls: Calls, reactor: IReactorTime) -> None:
        self._calls = calls
        self._reactor = reactor
        self._downloads: set[SnapshotDownload] = set()

    # --- how members are --------------------------------------------------------------------------------------------

    def status(self, endpoint: str | None = None, *, timeout: float | None = None) -> Deferred[StatusResponse]:
        """
        How a member is by its own account: version, size of its database, leader, … (``Maintenance.Status``).

        :param endpoint: the URL of the member; None for whichever serves.
        """
        return self._calls.call(rpcs.STATUS, StatusRequest(), timeout=timeout, endpoint=endpoint)

    def hash(self, endpoint: str | None = None, *, timeout: float | None = None) -> Deferred[HashResponse]:
        """
        A checksum of a member's whole database (``Maintenance.Hash``).

        It also counts what differs between members that agree, so it is for etcd's own tests: see :meth:`hash_kv`.

        :param endpoint: the URL of the member; None for whichever serves.
        """
        return self._calls.call(rpcs.HASH, HashRequest(), timeout=timeout, endpoint=endpoint)

    def hash_kv(
        self, endpoint: str | None = None, revision: int = 0, *, timeout: float | None = None
    ) -> Deferred[HashKVResponse]:
        """
        A checksum of a member's keys up to a revision (``Maintenance.HashKV``).

        Members that agree have the same, at one revision and with the same ``compact_revision``.

        :param endpoint: the URL of the member; None for whichever serves.
        :param revision: 0 for the newest.
        :raises Unimplemented: the server's gateway does not have it (3.4.23 and 3.5.1 do not).
        :raises FutureRevision: there is no such revision yet.
        :raises Compacted: it is kept no longer.
        """
        request = HashKVRequest(to_int(revision, "revision"))
        return self._calls.call(rpcs.HASH_KV, request, timeout=timeout, endpoint=endpoint)

    # --- alarms -----------------------------------------------------------------------------------------------------

    def alarms(self, *, timeout: float | None = None) -> Deferred[AlarmResponse]:
        """The alarms of all members: ``response.alarms`` (``Maintenance.Alarm``)."""
        return self._calls.call(rpcs.ALARM, AlarmRequest(), timeout=timeout)

    def alarm_activate(
        self, member_id: int, alarm: Alarm | AlarmType, *, timeout: float | None = None
    ) -> Deferred[AlarmResponse]:
        """
        Raise an alarm of a member (``Maintenance.Alarm``).

        While there is one, etcd answers writes with ``NoSpace``, or everything with ``CorruptCluster``.
        """
        return self._alarm(AlarmAction.ACTIVATE, member_id, alarm, timeout)

    def alarm_disarm(
        self, member_id: int, alarm: Alarm | AlarmType, *, timeout: float | None = None
    ) -> Deferred[AlarmResponse]:
        """
        Take an alarm of a member back (``Maintenance.Alarm``); one that is not raised is none to take back.

        Before that, see to what it is about: after ``NOSPACE`` :meth:`~twisted_etcd.client.client.EtcdClient.compact`
        and :meth:`defragment`.

        :return: fires with the alarm that there was, in ``response.alarms``.
        """
        return self._alarm(AlarmAction.DEACTIVATE, member_id, alarm, timeout)

    def _alarm(
        self, action: AlarmAction, member_id: int, alarm: Alarm | AlarmType, timeout: float | None
    ) -> Deferred[AlarmResponse]:
        kinds = (AlarmType.NOSPACE, AlarmType.CORRUPT)
        if alarm not in kinds:
            msg = f"alarm must be one of {', '.join(repr(kind.value) for kind in kinds)}, not {alarm!r}"
            raise InvalidSettings(msg)
        if not to_int(member_id, "member_id"):
            msg = "member_id is 0, which is no member: take it from alarms() or members()"
            raise InvalidSettings(msg)
        request = AlarmRequest(action, member_id, AlarmType(alarm))
        return self._calls.call(rpcs.ALARM, request, timeout=timeout)

    # --- the database -----------------------------------------------------------------------------------------------

    def defragment(self, endpoint: str, *, timeout: float | None = None) -> Deferred[DefragmentResponse]:
        """
        Give free space of a member's database back to its disk (``Maintenance.Defragment``).

        The member serves nothing meanwhile, a second or more for each GiB: do it to one member after the other, the
        leader last, and give it the time it takes.

        :param endpoint: the URL of the member.
        :raises OutcomeUnknown: it was not done in time, and etcd goes on with it.
        """
        return self._calls.call(rpcs.DEFRAGMENT, DefragmentRequest(), timeout=timeout, endpoint=_given(endpoint))

    def snapshot(
        self,
        path: str | PathLike[str],
        endpoint: str | None = None,
        *,
        progress: Callable[[int, int], object] | None = None,
        timeout: float | None = None,
    ) -> Deferred[Snapshot]:
        """
        Save a copy of a member's database (``Maintenance.Snapshot``), for ``etcdutl snapshot restore``.

        It is written to ``path`` with ``.part`` behind it, checked by the SHA-256 that etcd sends with it, and renamed
        once all of it is on the disk, so that a file at ``path`` is always whole. Where that fails, or the Deferred is
        cancelled, ``.part`` is removed, and what was at ``path`` before is still there. No more than a few MiB of it
        are held at a time, and the disk is never waited for in the reactor's thread.

        A member that breaks off, hangs or sends something else is left for the next endpoint, from the beginning.

        :param path: the file; its directory must be there. It can be read by its owner alone, since all of etcd's
            keys and the hashes of its passwords are in it.
        :param endpoint: the URL of the one member to ask; None for whichever serves. One without a leader gives what it
            has.
        :param progress: called with how many bytes were written and how many there will be, again and again; from the
            beginning where another endpoint is tried. What it raises ends the snapshot.
        :param timeout: seconds for all of it, in which the endpoints are tried round after round. Where it is None
            each is tried once and takes as long as it takes, as long as something comes.
        :raises SnapshotNotWritten: the file could not be written; the error names it.
        :raises Unavailable: no endpoint gave it whole; ``tried`` says why.
        :raises DeadlineExceeded: it was not there in time.
        :raises PermissionDenied: only users with the role ``root`` may have it.
        """
        member = self._calls.member_at(endpoint)
        target = snapshot_path(path)
        if progress is not None and not callable(progress):
            msg = f"progress must be a function that takes two numbers, not {type(progress).__name__}"
            raise TypeError(msg)
        if not IReactorThreads.providedBy(self._reactor):
            msg = f"a snapshot needs a reactor with threads, which {type(self._reactor).__name__} does not have"
            raise TypeError(msg)
        if not self._calls.may_ask(rpcs.SNAPSHOT, timeout):
            return fail(stopped_before(rpcs.SNAPSHOT))
        download = SnapshotDownload(
            self._calls.gateway,
            self._reactor,
            SnapshotFile(target),
            endpoint=member,
            progress=progress,
            timeout=timeout,
        )
        self._downloads.add(download)
        download.over.wait().addCallback(lambda _: self._downloads.discard(download))
        return download.start()

    # --- leader and version -----------------------------------------------------------------------------------------

    def move_leader(
        self, target_id: int, *, endpoint: str | None = None, timeout: float | None = None
    ) -> Deferred[MoveLeaderResponse]:
        """
        Make another member the leader (``Maintenance.MoveLeader``).

        Only the leader can do so: it is found first, among the client's endpoints or by its own client URLs.

        :param target_id: the id of the member that is to lead.
        :param endpoint: the URL of the leader, where it is known.
        :raises BadLeaderTransferee: no member that could lead has that id.
        :raises NotLeader: the leader is not to be found at any of these addresses.
        :raises OutcomeUnknown: it was asked for and not confirmed.
        """
        request = MoveLeaderRequest(to_int(target_id, "target_id"))
        self._calls.member_at(endpoint)
        if not self._calls.may_ask(rpcs.MOVE_LEADER, timeout):
            return fail(stopped_before(rpcs.MOVE_LEADER))
        return Deferred.fromCoroutine(self._move_leader(request, endpoint, timeout))

    async def _move_leader(
        self, request: MoveLeaderRequest, endpoint: str | None, timeout: float | None
    ) -> MoveLeaderResponse:
        seconds = self._calls.gateway.request_timeout if timeout is None else timeout
        deadline = self._reactor.seconds() + seconds
        if endpoint is not None:
            leader = self._calls.member_at(endpoint)
        else:
            leader = await self._leader(deadline, seconds)
        return await self._calls.gateway.unary(
            rpcs.MOVE_LEADER, request, timeout=seconds, deadline=deadline, endpoint=leader
        )

    async def _leader(self, deadline: float, seconds: float) -> Endpoint | None:
        """Where the leader is; None where it has no address but, perhaps, one of the client's endpoints."""
        gateway = self._calls.gateway
        status = await gateway.unary(rpcs.STATUS, StatusRequest(), timeout=seconds, deadline=deadline)
        found = await self._member_among(gateway.endpoints, status.leader)
        if found is not None:
            return found
        listed = await gateway.unary(rpcs.MEMBER_LIST, MemberListRequest(), timeout=seconds, deadline=deadline)
        urls = [url for member in listed.members if status.leader == member.ID for url in member.clientURLs]
        own: list[Endpoint] = []
        for url in urls:
            with suppress(InvalidSettings):
                own.append(parse_endpoint(url))
        return await self._member_among(own, status.leader)

    async def _member_among(self, endpoints: Sequence[Endpoint], member_id: int) -> Endpoint | None:
        """The endpoint at which that member answers, if it is one of these."""
        conditions = await gatherResults([self._calls.gateway.checkup(each) for each in endpoints])
        answering = zip(conditions, endpoints, strict=True)
        return next((each for condition, each in answering if member_id and condition.member_id == member_id), None)

    def downgrade(
        self,
        action: Literal["validate", "enable", "cancel"] | DowngradeAction,
        version: str = "",
        *,
        timeout: float | None = None,
    ) -> Deferred[DowngradeResponse]:
        """
        Check, begin or cancel a downgrade of the cluster (``Maintenance.Downgrade``).

        etcd 3.5 begins and cancels and does not say so: ``OutcomeUnknown`` once the time is over. Ask for the same
        again to see: it is answered by ``DowngradeUnderWay`` or ``NoDowngrade`` then.

        :param action: ``"validate"``, ``"enable"`` or ``"cancel"``.
        :param version: the one to go down to, for example ``"3.5.0"``: one minor version below the cluster's.
        :raises Unimplemented: before etcd 3.5.
        :raises InvalidDowngradeVersion: the cluster cannot go down to that version.
        :raises DowngradeUnderWay: one has begun already.
        :raises NoDowngrade: there is none to cancel.
        """
        actions = {member.value.lower(): member for member in DowngradeAction}
        chosen = actions.get(action.lower()) if isinstance(action, str) else None
        if chosen is None:
            msg = f"action must be one of {', '.join(map(repr, actions))}, not {action!r}"
            raise InvalidSettings(msg)
        if not isinstance(version, str):
            msg = f"version must be a str, not {type(version).__name__}"
            raise TypeError(msg)
        if bool(version) is (chosen is DowngradeAction.CANCEL):
            remedy = "leave it out" if version else "give the one to go down to, for example '3.5.0'"
            msg = f"version is {version!r} for {chosen.value.lower()!r}: {remedy}"
            raise InvalidSettings(msg)
        return self._calls.call(rpcs.DOWNGRADE, DowngradeRequest(chosen, version), timeout=timeout)

    # --- the end ----------------------------------------------------------------------------------------------------

    def stop(self) -> Deferred[None]:
        """End the snapshots under way; fires when their files are closed, and those that are not whole are gone."""
        ending = [download.stop() for download in tuple(self._downloads)]
        return DeferredList(ending).addCallback(lambda _: None)


def _given(endpoint: str) -> str:
    if isinstance(endpoint, str):
        return endpoint
    msg = f"endpoint must be the URL of the member that is meant, not {type(endpoint).__name__}"
    raise TypeError(msg)
