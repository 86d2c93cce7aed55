"""One request and its one answer: attempts at one endpoint after the other, inside one deadline."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import msgspec
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from twisted_etcd.backoff import Backoff
from twisted_etcd.errors import (
    DeadlineExceeded,
    EtcdError,
    NotEtcd,
    OutcomeUnknown,
    RequestFailed,
    ServiceStopped,
    Unavailable,
)
from twisted_etcd.gateway.checkups import Condition
from twisted_etcd.gateway.endpoints import Endpoint
from twisted_etcd.gateway.endpointset import EndpointSet
from twisted_etcd.gateway.exchange import ExchangeFailed, Reach, Reply
from twisted_etcd.gateway.repetition import Next, after_break, after_error
from twisted_etcd.gateway.tokens import Tokens, is_stale_token
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.rpcs import RPC

ResultT = TypeVar("ResultT")


class _NoToken(Exception):
    """There is no token, and so nothing was sent: ends the call, whatever it would have tried next."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


class _Left(ExchangeFailed):
    """An attempt was given up for another member, and what there is to note of its own was noted."""


class _Attempt(msgspec.Struct, eq=False):
    """
    A request that is on its way.

    :ivar doubted_at: when something is done about its member's silence.
    :ivar waiting: what it waits for: its turn, then its answer.
    :ivar has_turn: whether it may have been sent.
    :ivar asked: whether its member is being asked how it is.
    :ivar left_for: why it was given up for another member, once it was.
    """

    endpoint: Endpoint
    doubted_at: float
    waiting: Deferred[Any]
    has_turn: bool = False
    asked: bool = False
    left_for: str = ""


class Abandoned(CancelledError):
    """
    Nobody waits for the call any more: its Deferred was cancelled.

    :ivar maybe_sent: whether etcd may have acted on it.
    """

    def __init__(self, *, maybe_sent: bool) -> None:
        super().__init__()
        self.maybe_sent = maybe_sent


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a call needs of its gateway.

    :ivar turns: gives those that may be taken at an endpoint.
    :ivar post: sends a body to a path of an endpoint, with a token where it is not empty.
    :ivar checkup: finds out how a member is that says nothing.
    :ivar longest_patience: seconds after which that is asked at the latest.
    :ivar tokens: where the token comes from; None without a user.
    :ivar random: gives numbers from 0 up to 1, for the waits between attempts.
    """

    clock: IReactorTime
    endpoints: EndpointSet
    turns: Callable[[Endpoint], DeferredSemaphore]
    post: Callable[[Endpoint, str, str, bytes], Deferred[Reply]]
    checkup: Callable[[Endpoint], Deferred[Condition]]
    longest_patience: float
    tokens: Tokens | None
    random: Callable[[], float]


class UnaryCall(Generic[ResultT]):
    """
    A call under way.

    A member that says nothing for half of its share of the call's time is asked how it is. Where it is well the call
    waits on: its answer may just take long. Where it is not, or says nothing for the other half either, what can go
    elsewhere does: a read, or a write that still waits for its turn. A write that may have been sent waits, since it
    cannot be taken back.

    :param read: what a whole HTTP answer of the endpoint of that URL means.
    :param repeatable: whether it may be sent again although etcd may have acted on it.
    :param timeout: seconds for all of it: waiting for a connection and a token, every attempt, and the last body.
    :param name: what errors call it.
    :param deadline: when that time is over, by the clock, where some of it has passed already.
    """

    def __init__(
        self,
        route: Route,
        rpc: RPC[Any, Any],
        body: bytes,
        read: Callable[[Reply, str], ResultT],
        *,
        repeatable: bool,
        timeout: float,
        name: str,
        deadline: float | None = None,
    ) -> None:
        self._route = route
        self._rpc = rpc
        self._name = name
        self._body = body
        self._read = read
        self._repeatable = repeatable
        self._timeout = timeout
        self._tried: dict[str, str] = {}
        #: Whether an attempt that has ended may have reached etcd.
        self._maybe_sent = False
        #: Set once the call is to end, whatever its attempt is at: makes the error from how far that attempt got.
        self._verdict: Callable[[Reach], Exception] | None = None
        self._last_answer: EtcdError | None = None
        self._running: Deferred[ResultT] | None = None
        self._under_way: _Attempt | None = None
        #: Where this round has been.
        self._round: set[Endpoint] = set()
        self._deadline = route.clock.seconds() + timeout if deadline is None else deadline
        # Half of the share that leaves time for every endpoint; the other half is for the question.
        self._patience = min(timeout / (2 * max(2, len(route.endpoints.all))), route.longest_patience)
        self._timer: IDelayedCall | None = None

    def start(self) -> Deferred[ResultT]:
        """Begin; the Deferred fires with the response, and cancelling it closes the connection in use."""
        outer: Deferred[ResultT] = Deferred(lambda _: self._abandon(self._cancelled))
        self._wind(self._route.clock.seconds())

        def done(result: ResultT | Failure) -> None:
            if self._timer is not None:
                self._timer.cancel()
            self._running = None
            if isinstance(result, Failure):
                outer.errback(result)
            else:
                outer.callback(result)

        self._running = Deferred.fromCoroutine(self._run())
        self._running.addBoth(done)
        return outer

    def stop(self) -> None:
        """End it now, with :class:`~twisted_etcd.errors.ServiceStopped`."""
        self._abandon(lambda _reach: ServiceStopped(f"the client was stopped while {self._name} was under way"))

    def _abandon(self, verdict: Callable[[Reach], Exception]) -> None:
        if self._running is not None and self._verdict is None:
            self._verdict = verdict
            self._running.cancel()

    def _wind(self, now: float) -> None:
        # An attempt that begins later is doubted later.
        attempt = self._under_way
        due = min(self._deadline, now + self._patience if attempt is None else attempt.doubted_at)
        self._timer = self._route.clock.callLater(max(0.0, due - now), self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = self._route.clock.seconds()
        if now >= self._deadline:
            self._abandon(self._expired)
            return
        attempt = self._under_way
        if attempt is not None and now >= attempt.doubted_at:
            self._doubt(attempt, now)
        # What follows may have come to an end at once.
        if self._running is not None:
            self._wind(now)

    def _doubt(self, attempt: _Attempt, now: float) -> None:
        attempt.doubted_at = now + self._patience
        if not attempt.asked:
            attempt.asked = True
            self._route.checkup(attempt.endpoint).addCallback(self._checked, attempt)
        elif self._can_leave(attempt) and self._route.endpoints.choose(self._round) is not None:
            # Only to go where it has not been: where all are slow, going in circles helps nobody.
            self._leave(attempt, f"it said nothing for {2 * self._patience:.3g} s")

    def _checked(self, condition: Condition, attempt: _Attempt) -> None:
        if attempt is not self._under_way or self._verdict is not None:
            return
        attempt.asked = False
        if condition.trouble and self._can_leave(attempt) and len(self._route.endpoints.all) > 1:
            self._leave(attempt, condition.trouble)
        else:
            attempt.doubted_at = self._route.clock.seconds() + self._patience

    def _can_leave(self, attempt: _Attempt) -> bool:
        return self._repeatable or not attempt.has_turn

    def _leave(self, attempt: _Attempt, why: str) -> None:
        attempt.left_for = why
        attempt.waiting.cancel()

    def _cancelled(self, reach: Reach) -> Exception:
        return Abandoned(maybe_sent=self._maybe_sent or reach is Reach.MAYBE_SENT)

    def _expired(self, reach: Reach) -> Exception:
        sent = self._maybe_sent or reach is Reach.MAYBE_SENT
        if not sent and self._last_answer is not None:
            return self._last_answer
        return out_of_time(self._name, self._timeout, sent=sent, repeatable=self._repeatable, tried=self._tried)

    async def _run(self) -> ResultT:
        try:
            return await self._attempts()
        except _NoToken as refused:
            raise refused.error from refused.__cause__
        except (ExchangeFailed, CancelledError) as ended:
            if self._verdict is None:
                raise
            raise self._verdict(_reach(ended)) from ended

    async def _attempts(self) -> ResultT:
        """Round after round over the endpoints, until an answer stands or the call is ended from outside."""
        backoff = Backoff(self._route.random)
        endpoints = self._route.endpoints
        while True:
            self._round = set()
            hopeless: list[Unavailable] = []
            while (endpoint := endpoints.choose(self._round)) is not None:
                self._round.add(endpoint)
                try:
                    result = await self._attempt(endpoint)
                except (ExchangeFailed, NotEtcd, EtcdError) as error:
                    obstacle = self._failed(endpoint, error)
                    if obstacle is not None:
                        hopeless.append(obstacle)
                else:
                    endpoints.served(endpoint)
                    return result
            if len(hopeless) == len(self._round):
                # Waiting does not mend a certificate or a wrong address.
                raise type(hopeless[-1])(str(hopeless[-1].args[0]), self._tried)
            await deferLater(self._route.clock, backoff.next())

    def _failed(self, endpoint: Endpoint, error: ExchangeFailed | NotEtcd | EtcdError) -> Unavailable | None:
        """
        Note what became of an attempt.

        :return: what the call ends with if all endpoints are so, where waiting does not mend it.
        :raises Exception: what the call ends with now, where it is not to go on.
        """
        if isinstance(error, EtcdError):
            self._answered(endpoint, error)
            return None
        if isinstance(error, NotEtcd):
            why = error.tried[str(endpoint)]
        elif self._verdict is not None:
            raise error
        else:
            why = error.why
        if not isinstance(error, _Left):
            self._route.endpoints.failed(endpoint, why)
        self._tried[str(endpoint)] = why
        self._last_answer = None
        return error if isinstance(error, NotEtcd) else self._broke(error)

    def _broke(self, broken: ExchangeFailed) -> Unavailable | None:
        self._maybe_sent = self._maybe_sent or broken.reach is Reach.MAYBE_SENT
        if after_break(broken.reach, repeatable=self._repeatable) is Next.UNKNOWN:
            raise self._unknown() from broken
        return None if broken.obstacle is None else broken.obstacle(f"no endpoint can serve {self._name}")

    def _answered(self, endpoint: Endpoint, error: EtcdError) -> None:
        if error.concerns_member:
            self._route.endpoints.failed(endpoint, str(error))
        else:
            self._route.endpoints.served(endpoint)
        self._tried[str(endpoint)] = str(error)
        self._last_answer = error
        following = after_error(error, repeatable=self._repeatable)
        if following is Next.UNKNOWN:
            raise self._unknown() from error
        if following is Next.FAIL:
            raise error

    def _unknown(self) -> OutcomeUnknown:
        return OutcomeUnknown(f"{self._name} was sent and not confirmed; it may have been applied", self._tried)

    async def _attempt(self, endpoint: Endpoint) -> ResultT:
        token = await self._token()
        try:
            return await self._once(endpoint, token)
        except EtcdError as error:
            if self._route.tokens is None or not is_stale_token(error):
                raise
            # etcd refused it before doing anything, so even a write may go again, with a new token.
            self._route.tokens.refused(token)
        return await self._once(endpoint, await self._token())

    async def _once(self, endpoint: Endpoint, token: str) -> ResultT:
        turns = self._route.turns(endpoint)
        attempt = _Attempt(endpoint, self._route.clock.seconds() + self._patience, turns.acquire())
        self._under_way = attempt
        try:
            await attempt.waiting
            try:
                attempt.has_turn = True
                attempt.waiting = self._route.post(endpoint, self._rpc.path, token, self._body)
                reply = await attempt.waiting
            finally:
                turns.release()
        except (ExchangeFailed, CancelledError) as ended:
            if not attempt.left_for or self._verdict is not None:
                raise
            raise _Left(attempt.left_for, _reach(ended)) from ended
        finally:
            self._under_way = None
        return self._read(reply, str(endpoint))

    async def _token(self) -> str:
        if self._route.tokens is None:
            return ""
        try:
            return await self._route.tokens.current()
        except RequestFailed as failed:
            # Whatever became of the request for a token, this call was not sent.
            kind = type(failed) if isinstance(failed, Unavailable) else Unavailable
            raise _NoToken(kind(f"{self._name} needs a token and got none", failed.tried)) from failed
        except EtcdError as error:
            if not error.may_be_applied and not error.concerns_member:
                raise _NoToken(error) from None
            tried = {rpcs.AUTHENTICATE.name: str(error)}
            raise _NoToken(Unavailable(f"{self._name} needs a token and got none", tried)) from error


def out_of_time(
    name: str, seconds: float, *, sent: bool, repeatable: bool, tried: Mapping[str, str] | None = None
) -> RequestFailed:
    """
    What a call ends with whose time is over.

    :param sent: whether it may have been sent.
    :param tried: what became of each endpoint that was tried.
    """
    text = f"{name} got no answer within {seconds:g} s"
    if not sent and (tried or not repeatable):
        return Unavailable(f"{text}, and was not sent", tried)
    if repeatable:
        return DeadlineExceeded(text, tried)
    return OutcomeUnknown(f"{text}; it may have been applied", tried)


def _reach(ended: ExchangeFailed | CancelledError) -> Reach:
    # What was not being sent waited: for a token, for its turn, or between two attempts.
    return ended.reach if isinstance(ended, ExchangeFailed) else Reach.NOT_SENT
