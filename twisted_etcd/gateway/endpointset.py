"""Which endpoint to use next: what is known of each one, and when one that failed is tried again. Pure."""

from __future__ import annotations

import enum
from collections.abc import Callable, Container, Iterable, Sequence

import msgspec

from twisted_etcd.backoff import Backoff
from twisted_etcd.gateway.endpoints import Endpoint

#: Seconds: the longest time that an endpoint is left alone after its first failure, and after many.
RESTS = (1.0, 10.0)


class EndpointState(enum.Enum):
    """``UNTRIED`` → ``SERVING`` ⇄ ``FAILING``, or ``UNTRIED`` → ``FAILING``."""

    UNTRIED = "not tried yet"
    SERVING = "serves"
    FAILING = "failed, and is used last until it is known to serve again"


class EndpointStatus(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a client knows of one of its endpoints.

    :ivar url: for example ``http://10.0.0.1:2379``.
    :ivar why: what went wrong there last, in words; empty where it serves.
    :ivar failures: how often in a row it was found failing.
    :ivar retry_in: seconds until it is asked again how it is; 0 where that is due with the next request, or where it
        does not fail.
    """

    url: str
    state: EndpointState
    why: str = ""
    failures: int = 0
    retry_in: float = 0.0

    def __str__(self) -> str:
        why = f": {self.why}" if self.why else ""
        return f"{self.url} {self.state.value}{why}"


class _Member(msgspec.Struct):
    """What is known of one endpoint."""

    backoff: Backoff
    state: EndpointState = EndpointState.UNTRIED
    why: str = ""
    #: When it may be tried again.
    due: float = 0.0


class EndpointSet:
    """
    The endpoints of one client, in the order in which the next request tries them.

    One that serves keeps its place, so a client stays with it. One that fails goes to the end, so that where all fail
    each has its turn; once it serves again it is the last of those that do.

    :param seconds: tells the time.
    :param random: gives numbers from 0 up to 1, for how long one that failed is left alone.
    """

    def __init__(
        self, endpoints: Iterable[Endpoint], seconds: Callable[[], float], random: Callable[[], float]
    ) -> None:
        self._seconds = seconds
        self._random = random
        self._members: dict[Endpoint, _Member] = {}
        self._order: list[Endpoint] = []
        self._all: tuple[Endpoint, ...] = ()
        self.replace(tuple(endpoints))

    @property
    def all(self) -> tuple[Endpoint, ...]:
        """Every endpoint, in the order given."""
        return self._all

    def replace(self, endpoints: Sequence[Endpoint]) -> None:
        """From now on there are these; what is known of those that stay is kept, and those in use are used on."""
        kept = [endpoint for endpoint in self._order if endpoint in endpoints]
        self._all = tuple(endpoints)
        self._members = {each: self._members.get(each) or self._unknown() for each in endpoints}
        self._order = kept + [each for each in endpoints if each not in kept]
        self._order.sort(key=self._fails)

    def _unknown(self) -> _Member:
        return _Member(Backoff(self._random, *RESTS))

    def choose(self, besides: Container[Endpoint] = ()) -> Endpoint | None:
        """
        The endpoint that the next attempt goes to.

        :param besides: those that it shall not go to; None where there is no other.
        """
        return next((endpoint for endpoint in self._order if endpoint not in besides), None)

    def served(self, endpoint: Endpoint) -> None:
        """It did what a member with a leader does."""
        member = self._members.get(endpoint)
        if member is None or member.state is EndpointState.SERVING:
            return
        was = member.state
        member.state, member.why, member.due = EndpointState.SERVING, "", 0.0
        member.backoff.reset()
        if was is EndpointState.FAILING:
            self._order.remove(endpoint)
            self._order.insert(len(self._order) - len(self._failing()), endpoint)

    def failed(self, endpoint: Endpoint, why: str) -> None:
        """It did not; several failures within one rest, of requests that were under way together, count as one."""
        member = self._members.get(endpoint)
        if member is None:
            return
        member.why = why
        self._order.remove(endpoint)
        self._order.append(endpoint)
        if member.state is EndpointState.FAILING and member.due > self._seconds():
            return
        member.state = EndpointState.FAILING
        member.due = self._seconds() + member.backoff.next()

    def due(self) -> tuple[Endpoint, ...]:
        """Those that failed and were left alone long enough."""
        return tuple(endpoint for endpoint in self._failing() if self._members[endpoint].due <= self._seconds())

    def _failing(self) -> list[Endpoint]:
        # They stand at the end, so that the usual case is quick: none is.
        count = 0
        while count < len(self._order) and self._fails(self._order[-1 - count]):
            count += 1
        return self._order[len(self._order) - count :]

    def _fails(self, endpoint: Endpoint) -> bool:
        return self._members[endpoint].state is EndpointState.FAILING

    def statuses(self) -> tuple[EndpointStatus, ...]:
        """What is known of each, in the order given."""
        return tuple(self._status(endpoint) for endpoint in self._all)

    def _status(self, endpoint: Endpoint) -> EndpointStatus:
        member = self._members[endpoint]
        return EndpointStatus(
            url=str(endpoint),
            state=member.state,
            why=member.why,
            failures=member.backoff.rounds,
            retry_in=max(0.0, member.due - self._seconds()),
        )
