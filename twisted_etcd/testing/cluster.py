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
from collections.abc import Callable, Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import TypeVar, cast

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_etcd.client.client import EtcdClient
from twisted_etcd.embedded.binary import find_binary
from twisted_etcd.errors import Compacted, EtcdError, OutcomeUnknown, RequestFailed, TwistedEtcdError
from twisted_etcd.moment import Moment
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.cluster import Member, MemberAddRequest, MemberListRequest, MemberRemoveRequest
from twisted_etcd.schema.maintenance import MoveLeaderRequest, StatusResponse
from twisted_etcd.testing.member import ClusterMember, ILabReactor
from twisted_etcd.testing.patience import Patience
from twisted_etcd.testing.peerlinks import PeerLinks

AnyT = TypeVar("AnyT")

#: So that a new leader is there within a second or two; arguments that are given come after these, and win.
QUICK = ("--heartbeat-interval=50", "--election-timeout=500")
#: Members come and go as soon as they are told to, and not only when all have been connected for five seconds.
_AT_ONCE = ("--strict-reconfig-check=false",)
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
        self._random = random
        self._patience = Patience(reactor, timeout, random)
        self._links = PeerLinks(reactor)
        self._members: list[ClusterMember] = []
        self._made = 0
        self._directory: Path | None = None
        self._ready: Moment[None] = Moment()
        #: Those that are being added: they stop with the others.
        self._newcomers: list[ClusterMember] = []

    def __repr__(self) -> str:
        return f"<EtcdCluster of {', '.join(map(repr, self._members)) or 'no members'}>"

    @property
    def timeout(self) -> float:
        """Seconds that anything may take that is waited for; may be changed, for what is asked for afterwards."""
        return self._patience.timeout

    @timeout.setter
    def timeout(self, seconds: float) -> None:
        self._patience.timeout = seconds

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
        names = ", ".join(member.name for member in self._members)
        msg = f"no member is named {name!r}; there are {names or 'none'}"
        raise KeyError(msg)

    def when_ready(self) -> Deferred[None]:
        """
        Fires when all members of the start serve and agree on a leader.

        Fails with :class:`~twisted_etcd.errors.StartFailed` where a member did not come up, with ``TimeoutError``
        where they did not agree, and with :class:`~twisted_etcd.errors.ServiceStopped` where it is stopped first.
        """
        return self._ready.wait()

    @property
    def pids(self) -> frozenset[int]:
        """Its processes: the members that run, and one that links them."""
        pids = {member.pid for member in (*self._members, *self._newcomers)} | {self._links.pid}
        return frozenset(pid for pid in pids if pid is not None)

    @property
    def ports(self) -> frozenset[int]:
        """The ports on which this process listens for it: those of the members' proxies."""
        return frozenset(member.proxy.port for member in (*self._members, *self._newcomers))

    # --- as a service ------------------------------------------------------------------------------------------------

    def startService(self) -> None:
        """Start all members; :meth:`when_ready` tells how that ends."""
        super().startService()  # type: ignore[no-untyped-call]
        if self._ready.happened:
            self._ready = Moment()
        self._made = 0
        self._directory = Path(tempfile.mkdtemp(prefix="twisted-etcd-cluster-"))
        self._patience.begin()
        self._links.start()
        self._members = [self._make_member() for _ in range(self._size)]
        self._patience.run(self._start).addCallbacks(self._ready.fire, self._ready.fail)

    def stopService(self) -> Deferred[None]:
        """
        End all processes with SIGKILL, paused ones too, and what is under way with ``ServiceStopped``.

        :return: fires when they are reaped, nothing listens, and the directory is gone.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        self._patience.end()
        stopping: list[Deferred[None]] = [member.stop() for member in (*self._members, *self._newcomers)]
        return DeferredList([*stopping, self._links.stop()], consumeErrors=True).addCallback(self._stopped)

    def _stopped(self, results: Iterable[tuple[bool, object]]) -> None:
        for succeeded, result in results:
            if not succeeded and isinstance(result, Failure):
                self._log.failure("a part of the cluster did not stop", result)
        self._members = []
        self._newcomers = []
        directory, self._directory = self._directory, None
        if directory is not None:
            shutil.rmtree(directory, ignore_errors=True)

    async def _start(self) -> None:
        ports = await _all(self._links.connect(member.name) for member in self._members)
        peers = list(zip(self._members, ports, strict=True))
        addresses = ",".join(f"{member.name}={_url(port)}" for member, port in peers)
        for member, port in peers:
            self._equip(member, port, addresses, "new")
        await _all(member.start() for member in self._members)
        await self._learn_ids(self._members[0])
        await self._agreement(len(self._members))

    # --- the leader --------------------------------------------------------------------------------------------------

    def leader(self) -> Deferred[ClusterMember]:
        """
        The member that leads: it says so itself, and most of those that vote do.

        Waits until that is so; one that is dead, paused or isolated leads nobody.

        :raises TimeoutError: where it is not so within ``timeout``; the text has what each member said.
        """
        return self._patience.run(lambda: self._agreement(self._majority()))

    def move_leader(self, to: ClusterMember | None = None) -> Deferred[ClusterMember]:
        """
        Hand the leadership over (``maintenance/transfer-leadership``).

        :param to: the new leader; None for any member that can be one.
        :return: fires with the new leader when most members follow it.
        :raises ValueError: where no other member could lead.
        :raises TimeoutError: where it does not come about within ``timeout``.
        """
        return self._patience.run(lambda: self._move_leader(to))

    async def _move_leader(self, to: ClusterMember | None) -> ClusterMember:
        problem = ""

        async def moved() -> ClusterMember | None:
            nonlocal to, problem
            leader = await self._agreement(self._majority())
            if leader is to:
                return leader
            to = to or self._successor_of(leader)
            try:
                async with leader.client() as client:
                    request = MoveLeaderRequest(targetID=to.id)
                    await client.call(rpcs.MOVE_LEADER, request, timeout=_CHANGE_TIMEOUT)
            except (EtcdError, RequestFailed) as error:
                problem = f": {error}"
            return None

        return await self._patience.until(moved, lambda: f"{to!r} did not become the leader{problem}")

    def _successor_of(self, leader: ClusterMember) -> ClusterMember:
        able = [
            member
            for member in self._members
            if member is not leader and member.running and not (member.paused or member.isolated or member.learner)
        ]
        if not able:
            msg = f"no member but {leader.name} could lead: {self!r}"
            raise ValueError(msg)
        return able[int(self._random() * len(able))]

    def _majority(self) -> int:
        return sum(not member.learner for member in self._members) // 2 + 1

    async def _agreement(self, count: int) -> ClusterMember:
        """Wait until so many members name the same leader, and it is one of them."""
        said: dict[str, StatusResponse | str] = {}

        async def agreed() -> ClusterMember | None:
            said.clear()
            said.update(await self._ask_all())
            named = [0 if isinstance(answer, str) else answer.leader for answer in said.values()]
            for member in self._members:
                if member.id and named.count(member.id) >= count and _leads(member, said[member.name]):
                    return member
            return None

        def problem() -> str:
            words = (f"\n  {name}: {self._in_words(answer)}" for name, answer in said.items())
            return f"{count} members that agree on a leader. What they say:{''.join(words)}"

        return await self._patience.until(agreed, problem)

    async def _ask_all(self) -> dict[str, StatusResponse | str]:
        """What each member says of itself, or why it says nothing."""
        members = tuple(self._members)
        answers = await _all(Deferred.fromCoroutine(self._ask(member)) for member in members)
        return {member.name: answer for member, answer in zip(members, answers, strict=True)}

    @staticmethod
    async def _ask(member: ClusterMember) -> StatusResponse | str:
        if not member.running:
            return "it is dead"
        if member.paused:
            return "it is paused"
        if member.isolated:
            return "it is isolated"
        try:
            answer = await member.status(_STATUS_TIMEOUT)
        except TwistedEtcdError as error:
            return f"{type(error).__name__}: {error}"
        # It may have been promoted.
        member.learner = answer.isLearner
        return answer

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
        return self._patience.run(lambda: self._compact(revision, physical=physical))

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
        return self._patience.run(lambda: self._add_member(learner=learner))

    async def _add_member(self, *, learner: bool) -> ClusterMember:
        leader = await self._agreement(self._majority())
        member = self._make_member(learner=learner)
        self._newcomers.append(member)
        try:
            await self._admit(member, leader)
            await member.start()
            await self._agreement(self._majority())
        except Exception:
            if not self._patience.over:
                await (self._remove(member) if member.id else self._give_up(member))
            raise
        self._newcomers.remove(member)
        self._members.append(member)
        return member

    async def _admit(self, member: ClusterMember, leader: ClusterMember) -> None:
        """Make room for it in the cluster, and tell it of the others."""
        port = await self._links.connect(member.name)
        async with leader.client() as client:
            request = MemberAddRequest(peerURLs=(_url(port),), isLearner=member.learner)
            try:
                members = (await client.call(rpcs.MEMBER_ADD, request, timeout=_STATUS_TIMEOUT)).members
            except OutcomeUnknown:
                # etcd drops a change that follows another at once, and does not say so.
                members = await self._listed(client)
                if not any(_url(port) in each.peerURLs for each in members):
                    members = (await client.call(rpcs.MEMBER_ADD, request, timeout=_CHANGE_TIMEOUT)).members
        member.id = next(each.ID for each in members if _url(port) in each.peerURLs)
        # One that was not started yet has no name in etcd.
        addresses = (f"{each.name or member.name}={url}" for each in members for url in each.peerURLs)
        self._equip(member, port, ",".join(addresses), "existing")

    def remove_member(self, member: ClusterMember) -> Deferred[None]:
        """
        Remove a member (``member/remove``) and end its process.

        :return: fires when it is gone; where it was the leader, there is another one then.
        :raises ValueError: where it is none of the members.
        :raises EtcdError: where etcd does not let it go.
        """
        return self._patience.run(lambda: self._remove_member(member))

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
        await self._give_up(member)

    async def _give_up(self, member: ClusterMember) -> None:
        await member.stop()
        await self._links.disconnect(member.name)
        for those in (self._members, self._newcomers):
            if member in those:
                those.remove(member)

    def heal(self) -> Deferred[None]:
        """
        Undo all faults: every member runs, goes on, and is reachable for clients and for the others.

        :return: fires when all of them follow one leader. Members that were removed or added stay so.
        :raises StartFailed: where a dead member did not come up again.
        :raises TimeoutError: where they did not agree within ``timeout``.
        """
        return self._patience.run(self._heal)

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
            patience=self._patience,
            learner=learner,
        )

    def _equip(self, member: ClusterMember, peer_port: int, addresses: str, state: str) -> None:
        member.equip(
            (
                f"--initial-advertise-peer-urls={_url(peer_port)}",
                f"--initial-cluster={addresses}",
                f"--initial-cluster-state={state}",
                *self._arguments,
            )
        )

    @staticmethod
    async def _listed(client: EtcdClient) -> tuple[Member, ...]:
        return (await client.call(rpcs.MEMBER_LIST, MemberListRequest(), timeout=_CHANGE_TIMEOUT)).members

    async def _learn_ids(self, member: ClusterMember) -> None:
        async with member.client() as client:
            ids = {each.name: each.ID for each in await self._listed(client)}
        for each in self._members:
            each.id = ids[each.name]


def _url(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def _leads(member: ClusterMember, answer: StatusResponse | str) -> bool:
    return isinstance(answer, StatusResponse) and answer.leader == member.id


async def _all(waiting: Iterable[Deferred[AnyT]]) -> list[AnyT]:
    """Wait for all of them; where some fail, raise what the first of these fails with."""
    results = await DeferredList(list(waiting), consumeErrors=True)
    for succeeded, result in results:
        if not succeeded:
            cast("Failure", result).raiseException()
    return [result for _, result in results]
