"""
A cluster of real etcd members, and all that can go wrong with one.

::

    cluster = EtcdCluster(reactor)
    cluster.startService()
    await cluster.when_ready()
    client = EtcdClient(reactor, cluster.endpoints)
    ...
    leader = await cluster.leader()
    await leader.kill()  # stays down until restart()
    (await cluster.leader()).pause()  # SIGSTOP: connects, and answers nothing
    await cluster.heal()
    cluster.members[0].isolate()  # clients reach it, the other members do not
    cluster.members[1].proxy.delay(0.2)
    await cluster.heal()
    await cluster.stopService()
"""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable, Coroutine, Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList, gatherResults
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_etcd.backoff import Backoff
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.embedded.binary import find_binary
from twisted_etcd.errors import Compacted, EtcdError, RequestFailed, ServiceStopped, TwistedEtcdError
from twisted_etcd.moment import Moment
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.cluster import Member, MemberAddRequest, MemberListRequest, MemberRemoveRequest
from twisted_etcd.schema.maintenance import MoveLeaderRequest, StatusResponse
from twisted_etcd.testing.member import ClusterMember, ILabReactor
from twisted_etcd.testing.peerlinks import PeerLinks

AnyT = TypeVar("AnyT")

#: So that a new leader is there within a second and a half; arguments that are given come after these, and win.
QUICK = ("--heartbeat-interval=50", "--election-timeout=500")
#: Members come and go as soon as they are told to, and not only when all have been connected for five seconds.
_AT_ONCE = ("--strict-reconfig-check=false",)
#: Seconds between two questions to the members: the longest after the first one, and the longest there is.
_POLL_DELAYS = (0.05, 0.5)
#: Seconds that a member has for an answer about itself.
_STATUS_TIMEOUT = 2.0
#: Seconds that a change of the cluster may take at a member.
_CHANGE_TIMEOUT = 10.0


class EtcdCluster(Service):
    """
    A cluster of real etcd members on loopback, for tests of faults.

    Its data are in a temporary directory that goes when it stops. The members' own requests carry no user, so
    authentication that a test switches on is to be switched off by it.

    :param reactor: spawns the processes, connects and tells the time.
    :param binary: the program, see :func:`~twisted_etcd.embedded.binary.find_binary`.
    :param size: how many members it starts with.
    :param extra_args: further arguments for each etcd. Elections are quick unless they say otherwise.
    :param timeout: seconds that anything may take that is waited for: a start, a new leader.
    :param random: gives numbers from 0 up to 1; for the choice of a member, and for the waits between questions.
    :raises BinaryNotFound: where there is no such program.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: ILabReactor,
        *,
        binary: str | PathLike[str] | None = None,
        size: int = 3,
        extra_args: Sequence[str] = (),
        timeout: float = 60.0,
        random: Callable[[], float] = random.random,
    ) -> None:
        if size < 1:
            msg = f"size is {size}, which must be at least 1"
            raise ValueError(msg)
        self._reactor = reactor
        self._binary = find_binary(binary)
        self._size = size
        self._arguments = (*QUICK, *_AT_ONCE, *extra_args)
        self._timeout = timeout
        self._random = random
        self._links = PeerLinks(reactor)
        self._members: list[ClusterMember] = []
        self._peer_ports: dict[str, int] = {}
        self._made = 0
        self._directory: Path | None = None
        self._ready: Moment[None] = Moment()
        self._working: set[Deferred[Any]] = set()

    def __repr__(self) -> str:
        return f"<EtcdCluster of {', '.join(map(repr, self._members)) or 'no members'}>"

    # --- its members -------------------------------------------------------------------------------------------------

    @property
    def members(self) -> tuple[ClusterMember, ...]:
        """Its members in the order in which they came, from ``startService`` on; those that were removed are not."""
        return tuple(self._members)

    @property
    def endpoints(self) -> list[str]:
        """The URLs for clients, each through the proxy of its member."""
        return [member.endpoint for member in self._members]

    def member(self, name: str) -> ClusterMember:
        """
        The member of that name.

        :raises KeyError: where there is none.
        """
        for member in self._members:
            if member.name == name:
                return member
        msg = f"no member is named {name!r}; there are {', '.join(member.name for member in self._members)}"
        raise KeyError(msg)

    def when_ready(self) -> Deferred[None]:
        """
        Fires when all members of the start serve and agree on a leader.

        Fails with :class:`~twisted_etcd.errors.StartFailed` where a member did not come up, with ``TimeoutError``
        where they did not agree, and with :class:`~twisted_etcd.errors.ServiceStopped` where it is stopped first.
        """
        return self._ready.wait()

    # --- as a service ------------------------------------------------------------------------------------------------

    def startService(self) -> None:
        """Start all members; :meth:`when_ready` tells how that ends."""
        super().startService()  # type: ignore[no-untyped-call]
        if self._ready.happened:
            self._ready = Moment()
        self._made = 0
        self._directory = Path(tempfile.mkdtemp(prefix="twisted-etcd-cluster-"))
        self._links.start()
        self._members = [self._make_member() for _ in range(self._size)]
        self._work(self._start()).addCallbacks(self._ready.fire, self._ready.fail)

    def stopService(self) -> Deferred[None]:
        """
        End all processes with SIGKILL, paused ones too, and what is under way with ``ServiceStopped``.

        :return: fires when they are reaped, nothing listens, and the directory is gone.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        for working in tuple(self._working):
            working.cancel()
        stopping: list[Deferred[None]] = [member.stop() for member in self._members]
        return DeferredList([*stopping, self._links.stop()], consumeErrors=True).addCallback(self._stopped)

    def _stopped(self, results: Iterable[tuple[bool, object]]) -> None:
        for succeeded, result in results:
            if not succeeded and isinstance(result, Failure):
                self._log.failure("a part of the cluster did not stop", result)
        self._members = []
        self._peer_ports = {}
        directory, self._directory = self._directory, None
        if directory is not None:
            shutil.rmtree(directory, ignore_errors=True)

    async def _start(self) -> None:
        ports = await gatherResults([self._links.connect(member.name) for member in self._members])
        self._peer_ports = {member.name: port for member, port in zip(self._members, ports, strict=True)}
        addresses = ",".join(f"{name}={_url(port)}" for name, port in self._peer_ports.items())
        for member in self._members:
            self._equip(member, addresses, "new")
        await _all(member.start() for member in self._members)
        await self._learn_ids(self._members[0])
        await self._agreement(len(self._members))

    # --- the leader --------------------------------------------------------------------------------------------------

    def leader(self) -> Deferred[ClusterMember]:
        """
        The member that leads: it says so itself, and most of those that vote do.

        Waits until that is so; one that is dead or paused leads nobody.

        :raises TimeoutError: where it is not so within ``timeout``; the text has what each member said.
        """
        return self._work(self._agreement(self._majority()))

    def move_leader(self, to: ClusterMember | None = None) -> Deferred[ClusterMember]:
        """
        Hand the leadership over (``maintenance/transfer-leadership``).

        :param to: the new leader; None for any member that can be one.
        :return: fires with the new leader when most members follow it.
        :raises ValueError: where no other member could lead.
        :raises TimeoutError: where it does not come about within ``timeout``.
        """
        return self._work(self._move_leader(to))

    async def _move_leader(self, to: ClusterMember | None) -> ClusterMember:
        deadline = self._deadline()
        wait = self._waits()
        while True:
            leader = await self._agreement(self._majority())
            target = to or self._successor_of(leader)
            if leader is target:
                return leader
            problem = ""
            try:
                async with leader.client() as client:
                    request = MoveLeaderRequest(targetID=target.id)
                    await client.call(rpcs.MOVE_LEADER, request, timeout=_CHANGE_TIMEOUT)
                to = target
            except (EtcdError, RequestFailed) as error:
                problem = str(error)
            if self._reactor.seconds() > deadline:
                msg = f"{target.name} did not become the leader within {self._timeout:g} s: {problem}"
                raise TimeoutError(msg)
            await deferLater(self._reactor, wait.next())

    def _successor_of(self, leader: ClusterMember) -> ClusterMember:
        able = [
            member
            for member in self._members
            if member is not leader
            and member.running
            and not (member.paused or member.isolated or member.learner)
        ]
        if not able:
            msg = f"no member but {leader.name} could lead: {self!r}"
            raise ValueError(msg)
        return able[int(self._random() * len(able))]

    def _majority(self) -> int:
        return sum(not member.learner for member in self._members) // 2 + 1

    async def _agreement(self, count: int) -> ClusterMember:
        """Wait until so many members name the same leader, and it is one of them."""
        deadline = self._deadline()
        wait = self._waits()
        while True:
            said = await self._ask_all()
            for member in self._members:
                answer = said[member.name]
                if isinstance(answer, StatusResponse) and member.id and answer.leader == member.id:
                    followers = [each for each in said.values() if _leader_of(each) == member.id]
                    if len(followers) >= count:
                        return member
            if self._reactor.seconds() > deadline:
                words = "".join(f"\n  {name}: {self._in_words(answer)}" for name, answer in said.items())
                msg = f"{count} members did not agree on a leader within {self._timeout:g} s. What they said:{words}"
                raise TimeoutError(msg)
            await deferLater(self._reactor, wait.next())

    async def _ask_all(self) -> dict[str, StatusResponse | str]:
        """What each member says of itself, or why it says nothing."""
        members = tuple(self._members)
        answers = await gatherResults([Deferred.fromCoroutine(self._ask(member)) for member in members])
        return {member.name: answer for member, answer in zip(members, answers, strict=True)}

    @staticmethod
    async def _ask(member: ClusterMember) -> StatusResponse | str:
        if not member.running:
            return "it is dead"
        if member.paused:
            return "it is paused"
        try:
            return await member.status(_STATUS_TIMEOUT)
        except TwistedEtcdError as error:
            return f"{type(error).__name__}: {error}"

    def _in_words(self, answer: StatusResponse | str) -> str:
        if isinstance(answer, str):
            return answer
        if not answer.leader:
            return "it has no leader"
        names = [member.name for member in self._members if member.id == answer.leader]
        return f"{names[0] if names else f'member {answer.leader:x}'} leads"

    # --- changes -----------------------------------------------------------------------------------------------------

    def compact(self, revision: int = 0, *, physical: bool = False) -> Deferred[int]:
        """
        Drop the history before a revision.

        :param revision: 0 for the present one.
        :param physical: whether to wait until the space has been given back.
        :return: fires with the revision that was compacted.
        :raises EtcdError: what etcd answers to a revision that it cannot compact.
        """
        return self._work(self._compact(revision, physical=physical))

    async def _compact(self, revision: int, *, physical: bool) -> int:
        leader = await self._agreement(self._majority())
        async with leader.client() as client:
            wanted = revision or (await client.get("\0", timeout=_CHANGE_TIMEOUT)).header.revision
            try:
                await client.compact(wanted, physical=physical, timeout=_CHANGE_TIMEOUT)
            except Compacted:
                # The present one may well have been compacted before.
                if revision:
                    raise
        return wanted

    def add_member(self, *, learner: bool = False) -> Deferred[ClusterMember]:
        """
        Add a member (``member/add``) and start it.

        :param learner: whether it gets no vote.
        :return: fires with it when it serves.
        :raises EtcdError: where etcd takes no further member.
        :raises StartFailed: where it did not come up; it is removed again.
        """
        return self._work(self._add_member(learner=learner))

    async def _add_member(self, *, learner: bool) -> ClusterMember:
        leader = await self._agreement(self._majority())
        member = self._make_member(learner=learner)
        added = False
        try:
            port = await self._links.connect(member.name)
            async with leader.client() as client:
                request = MemberAddRequest(peerURLs=(_url(port),), isLearner=learner)
                answer = await client.call(rpcs.MEMBER_ADD, request, timeout=_CHANGE_TIMEOUT)
            member.id = answer.member.ID
            self._members.append(member)
            self._peer_ports[member.name] = port
            added = True
            self._equip(member, ",".join(self._addresses(answer.members)), "existing")
            await member.start()
        except BaseException:
            await (self._remove(member) if added else self._give_up(member))
            raise
        await self._agreement(self._majority())
        return member

    def remove_member(self, member: ClusterMember) -> Deferred[None]:
        """
        Remove a member (``member/remove``) and end its process.

        :return: fires when it is gone; where it was the leader, there is another one then.
        :raises ValueError: where it is none of the members.
        :raises EtcdError: where etcd does not let it go.
        """
        return self._work(self._remove_member(member))

    async def _remove_member(self, member: ClusterMember) -> None:
        if member not in self._members:
            msg = f"{member.name} is no member any more"
            raise ValueError(msg)
        await self._remove(member)
        await self._agreement(self._majority())

    async def _remove(self, member: ClusterMember) -> None:
        leader = await self._agreement(self._majority())
        if leader is member and len(self._members) > 1:
            # One that removes itself does not always come to say so.
            leader = await self._move_leader(None)
        async with leader.client() as client:
            await client.call(rpcs.MEMBER_REMOVE, MemberRemoveRequest(ID=member.id), timeout=_CHANGE_TIMEOUT)
        self._members.remove(member)
        await self._give_up(member)

    async def _give_up(self, member: ClusterMember) -> None:
        self._peer_ports.pop(member.name, None)
        await member.stop()
        await self._links.disconnect(member.name)

    def heal(self) -> Deferred[None]:
        """
        Undo all faults: every member runs, goes on, and is reachable for clients and for the others.

        :return: fires when all of them follow one leader. Members that were removed or added stay so.
        :raises StartFailed: where a dead member did not come up again.
        :raises TimeoutError: where they did not agree within ``timeout``.
        """
        return self._work(self._heal())

    async def _heal(self) -> None:
        for member in self._members:
            member.resume()
        await _all(member.proxy.heal() for member in self._members)
        await _all(member.reconnect() for member in self._members)
        await _all(member.when_ready() if member.running else member.start() for member in self._members)
        await self._agreement(len(self._members))

    # --- how it is done ----------------------------------------------------------------------------------------------

    def _make_member(self, *, learner: bool = False) -> ClusterMember:
        if self._directory is None:
            msg = "the cluster is not running: start it, and wait for when_ready()"
            raise RuntimeError(msg)
        name = f"m{self._made}"
        self._made += 1
        return ClusterMember(
            self._reactor,
            name,
            binary=self._binary,
            directory=self._directory / name,
            links=self._links,
            start_timeout=self._timeout,
            learner=learner,
        )

    def _equip(self, member: ClusterMember, addresses: str, state: str) -> None:
        member.equip(
            (
                f"--initial-advertise-peer-urls={_url(self._peer_ports[member.name])}",
                f"--initial-cluster={addresses}",
                f"--initial-cluster-state={state}",
                *self._arguments,
            )
        )

    def _addresses(self, members: Iterable[Member]) -> Iterable[str]:
        """What ``--initial-cluster`` has of each member; one that was not started yet has no name in etcd."""
        names = {member.id: member.name for member in self._members}
        return (f"{names.get(each.ID, each.name)}={url}" for each in members for url in each.peerURLs)

    async def _learn_ids(self, member: ClusterMember) -> None:
        async with member.client() as client:
            answer = await client.call(rpcs.MEMBER_LIST, MemberListRequest(), timeout=_CHANGE_TIMEOUT)
        ids = {each.name: each.ID for each in answer.members}
        for each in self._members:
            each.id = ids[each.name]

    def _work(self, doing: Coroutine[Deferred[Any], Any, AnyT]) -> Deferred[AnyT]:
        """Do something until it is done or the cluster is stopped."""
        if not self.running:
            doing.close()
            msg = "the cluster is not running: start it, and wait for when_ready()"
            raise RuntimeError(msg)
        working = Deferred.fromCoroutine(doing)
        self._working.add(working)

        def done(result: AnyT | Failure) -> AnyT | Failure:
            self._working.discard(working)
            if isinstance(result, Failure) and result.check(CancelledError) and not self.running:
                return Failure(ServiceStopped("the cluster was stopped"))
            return result

        return working.addBoth(done)

    def _deadline(self) -> float:
        return self._reactor.seconds() + self._timeout

    def _waits(self) -> Backoff:
        return Backoff(self._random, *_POLL_DELAYS)


def _url(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def _leader_of(answer: StatusResponse | str) -> int:
    return 0 if isinstance(answer, str) else answer.leader


async def _all(waiting: Iterable[Deferred[Any]]) -> None:
    """Wait for all of them; where some fail, raise what the first of these fails with, and hold nothing of it."""
    results = await DeferredList(list(waiting), consumeErrors=True)
    for succeeded, result in results:
        if not succeeded:
            result.raiseException()
