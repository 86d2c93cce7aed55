"""The etcd in memory, as tests have it."""

from __future__ import annotations

from typing import Any, TypeVar, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from twisted_etcd.client.client import EtcdClient
from twisted_etcd.errors import EtcdError
from twisted_etcd.gateway.endpoints import parse_endpoint
from twisted_etcd.testing.memory.conversations import Conversation
from twisted_etcd.testing.memory.faults import Call
from twisted_etcd.testing.memory.gate import Gate
from twisted_etcd.testing.memory.leases import SHORTEST
from twisted_etcd.testing.memory.member import Limits, Member
from twisted_etcd.testing.memory.reactors import MemoryReactor, Network, ReactorBeside, wait_for
from twisted_etcd.testing.memory.refusals import refusal
from twisted_etcd.testing.memory.requests import Answering, Asked, answering
from twisted_etcd.testing.memory.users import TOKEN_TTL

T = TypeVar("T")

#: Where it is unless told otherwise: an address for documentation, which nobody has.
ENDPOINT = "http://192.0.2.1:2379"
#: Seconds between two answers to a watch that wants to know how far it is, as etcd has it.
PROGRESS_INTERVAL = 600.0


class MemoryEtcd:
    """
    An etcd of one member without a process: it answers as etcd 3.5 does, JSON and all, to whoever is given its
    :attr:`reactor`.

    Without a reactor it has a time of its own, that stands still but in :meth:`advance` and :meth:`wait`::

        etcd = MemoryEtcd()
        client = etcd.client()
        lease = etcd.wait(client.lease(10))

    With the real reactor it lives in real time, beside all else in that reactor::

        etcd = MemoryEtcd(reactor)
        service = MyService(EtcdClient(etcd.reactor, etcd.endpoint))

    There is nothing to start or stop: it leaves nothing in a reactor once its clients are stopped.

    :param reactor: the reactor to be in; None for a clock of its own.
    :param endpoint: where it can be reached, ``http://host:port``. Any host will do, since nothing else is asked.
    :param max_txn_ops: as etcd's ``--max-txn-ops``.
    :param max_request_bytes: as etcd's ``--max-request-bytes``.
    :param token_ttl: as etcd's ``--auth-token-ttl``, in seconds.
    :param min_lease_ttl: the shortest time to live that a lease gets, in seconds; etcd has it from its
        ``--election-timeout``.
    :param progress_interval: as etcd's ``--experimental-watch-progress-notify-interval``, in seconds.
    :param websocket_tokens: take a token that comes with a WebSocket, as 3.5.32 and later do.
    :param old: do as 3.5.1 where 3.5.16 does otherwise: forget the deletions of the very revision that is compacted
        to, answer every progress request, and have one word for all that forbids a watch.
    :param first_revision: the revision that it begins with.
    :ivar reactor: what its clients must be given.
    :ivar endpoint: what they must be told.
    :ivar clients: those that were made here; whoever has the test stops them.
    """

    def __init__(
        self,
        reactor: IReactorTime | None = None,
        *,
        endpoint: str = ENDPOINT,
        max_txn_ops: int = 128,
        max_request_bytes: int = 1536 * 1024,
        token_ttl: float = TOKEN_TTL,
        min_lease_ttl: int = SHORTEST,
        progress_interval: float = PROGRESS_INTERVAL,
        websocket_tokens: bool = False,
        first_revision: int = 1,
        old: bool = False,
    ) -> None:
        parsed = parse_endpoint(endpoint)
        if parsed.secure:
            msg = f"the etcd in memory speaks no TLS: write http:// in place of https:// in {endpoint!r}"
            raise ValueError(msg)
        network = Network()
        self._clock = MemoryReactor(network) if reactor is None else None
        clock = cast("IReactorTime", self._clock or reactor)
        # Of no use to mypy as anything narrower: it is whatever the reactor is.
        self.reactor: Any = self._clock or ReactorBeside(clock, network)
        self.endpoint = endpoint
        self.clients: list[EtcdClient] = []
        limits = Limits(
            max_txn_ops=max_txn_ops,
            max_request_bytes=max_request_bytes,
            token_ttl=token_ttl,
            min_lease_ttl=min_lease_ttl,
        )
        self._member = Member(clock.seconds, endpoint, limits)
        self._member.store.revision = first_revision
        self._member.store.old = old
        self._gate = Gate(self._member, clock)

        def answer(conversation: Conversation, asked: Asked) -> Answering:
            return answering(
                self._gate,
                conversation,
                asked,
                progress_interval=progress_interval,
                websocket_tokens=websocket_tokens,
            )

        def accept() -> Conversation | None:
            return Conversation(self._gate, clock, answer) if self._gate.open else None

        network.add(parsed.host, parsed.port, accept)

    def __repr__(self) -> str:
        return f"<MemoryEtcd {self.endpoint}, revision {self.revision}, {self.connection_count} connections>"

    def client(self, **options: Any) -> EtcdClient:  # noqa: ANN401 - as EtcdClient has them
        """
        A client of it, started.

        :param options: as :class:`~twisted_etcd.client.client.EtcdClient` takes them.
        """
        client = EtcdClient(**{"reactor": self.reactor, "endpoints": self.endpoint, **options})
        client.startService()
        self.clients.append(client)
        return client

    @property
    def revision(self) -> int:
        """The newest revision."""
        return self._member.store.revision

    @property
    def connection_count(self) -> int:
        """How many connections there are to it now."""
        return self._gate.guest_count

    # --- time -------------------------------------------------------------------------------------------------------

    def advance(self, seconds: float = 0.0) -> None:
        """
        Let time pass, each thing happening at its time; 0 lets everything arrive that is under way.

        :raises RuntimeError: where it is in the real reactor.
        """
        self._own_clock().advance(seconds)

    def wait(self, deferred: Deferred[T], patience: float = 60.0) -> T:
        """
        What a Deferred fires with, letting pass as much time as that takes.

        :param patience: how many seconds of the clock that may be.
        :raises TimeoutError: where it is not enough.
        :raises RuntimeError: where it is in the real reactor.
        """
        result: T = wait_for(self._own_clock(), deferred, patience)
        return result

    def _own_clock(self) -> MemoryReactor:
        if self._clock is None:
            msg = "this MemoryEtcd is in the real reactor, whose time passes by itself; make one without a reactor"
            raise RuntimeError(msg)
        return self._clock

    # --- faults of calls --------------------------------------------------------------------------------------------

    def fail_next(self, call: Call, error: EtcdError | type[EtcdError], times: int = 1) -> None:
        """
        Answer the next calls of a kind with an error, without serving them.

        :param call: one of ``twisted_etcd.schema.rpcs``, or its name, such as ``"KV.Put"``.
        :param error: what etcd would raise in the client; of a class, as etcd words it.
        :param times: how many of them. The client repeats some calls by itself: then it is one for each attempt.
        :raises ValueError: for a class that has no words of its own, and a name that no call has.
        """
        if isinstance(error, type) and not error.messages:
            msg = f"etcd has no words for {error.__name__}: give an instance, {error.__name__}(code, message)"
            raise ValueError(msg)
        self._gate.faults.fail(call, refusal(error) if isinstance(error, type) else error, times)

    def lose_next_answer(self, call: Call, times: int = 1) -> None:
        """Serve the next calls of a kind, and break the connection in place of the answer."""
        self._gate.faults.lose(call, times)

    def delay(self, call: Call, seconds: float) -> None:
        """Let all calls of a kind wait before they are looked at, from now on; 0 ends that."""
        self._gate.faults.delay(call, seconds)

    # --- faults of connections --------------------------------------------------------------------------------------

    def cut_streams(self) -> None:
        """Break all connections that carry a stream: watches and keepalives."""
        self._gate.cut(streams_only=True)

    def cut_connections(self) -> None:
        """Break all connections."""
        self._gate.cut()

    def go_away(self) -> None:
        """Break all connections, and refuse new ones, until :meth:`come_back`."""
        self._gate.close()

    def hang(self) -> None:
        """Accept connections, and answer nothing, as a process that is stopped, until :meth:`come_back`."""
        self._gate.hang()

    def come_back(self) -> None:
        """Serve again; all data are still there."""
        self._gate.reopen()

    # --- faults of the server ---------------------------------------------------------------------------------------

    def compact(self, revision: int | None = None) -> None:
        """
        Forget the history before a revision.

        :param revision: the lowest that can still be read; None for the newest.
        :raises Compacted: where that was done already.
        :raises FutureRevision: where there is no such revision yet.
        """
        self._member.store.compact(self.revision if revision is None else revision)

    def lose_lease(self, lease_id: int) -> None:
        """
        End a lease as if its time was over.

        :raises LeaseNotFound: where there is none of that id.
        """
        self._gate.look()
        self._member.end_lease(lease_id)
        self._gate.look()

    def elect_another_leader(self, after: float = 0.0) -> None:
        """
        Have another leader, in the next term: requests that wait fail, and leases get their whole time again.

        :param after: seconds without any leader before that. Requests wait for it, for at most 7 s; streams of clients
            that want a leader, as ours do, are ended after 4 s.
        """
        self._gate.elect(after)

    def expire_tokens(self) -> None:
        """End the tokens of all users."""
        self._member.users.forget_tokens()
