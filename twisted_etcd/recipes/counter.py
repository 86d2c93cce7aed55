"""A number in etcd that many add to."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from twisted_etcd.backoff import Backoff
from twisted_etcd.client import compare, op
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.client.kv import is_time, to_int
from twisted_etcd.errors import DeadlineExceeded, NotACounter, OutcomeUnknown
from twisted_etcd.keys import to_bytes
from twisted_etcd.schema.kv import PutResponse, RangeResponse

#: Seconds that an addition may take in all, unless told otherwise.
TIMEOUT = 10.0
#: Seconds: the longest wait after the second conflict, and after many.
_WAITS = (0.005, 0.25)
_NUMBER = re.compile(rb"[+-]?[0-9]{1,1000}")


class _Addition(msgspec.Struct, eq=False):
    """
    What one caller adds.

    :ivar sent: whether it is in a transaction that is under way, or was.
    """

    amount: int
    done: Deferred[int]
    timer: IDelayedCall | None = None
    sent: bool = False


class _Known(msgspec.Struct, frozen=True):
    """The number as it was at a revision; 0 for both where there is none."""

    value: int = 0
    mod_revision: int = 0


class Counter:
    """
    A whole number at a key, as decimal text, so that others can read it. A key that is not there counts as 0.

    Additions are exact, however many clients and processes make them at a time: each is applied once, by comparing the
    key's revision. Those that come while others of this object are under way travel together, in one transaction.

    An addition that fails with :class:`~twisted_etcd.errors.OutcomeUnknown` may have been applied, or may yet be; it
    is never made again by itself. To count exactly through that too, put what is counted and the count into one
    transaction, with :func:`~twisted_etcd.recipes.stm.stm`.

    :param timeout: seconds for each addition, its repetitions included.
    :param random: gives numbers from 0 up to 1, for the waits between attempts.
    """

    def __init__(
        self,
        client: EtcdClient,
        key: str | bytes,
        *,
        timeout: float = TIMEOUT,
        random: Callable[[], float] = random.random,
    ) -> None:
        if not is_time(timeout, "timeout") or timeout == 0:
            msg = f"timeout must be more than 0 seconds, and finite, not {timeout!r}"
            raise ValueError(msg)
        self.key = to_bytes(key)
        self._client = client
        self._clock = client.reactor
        self._timeout = timeout
        self._backoff = Backoff(random, *_WAITS)
        self._waiting: list[_Addition] = []
        self._working = False
        #: None where it has to be read.
        self._known: _Known | None = None

    def __repr__(self) -> str:
        return f"<Counter {self.key!r}>"

    def value(self) -> Deferred[int]:
        """
        The number now.

        :raises NotACounter: the key holds something else.
        """
        return self._client.get(self.key, timeout=self._timeout).addCallback(self._number).addCallback(_value)

    def add(self, amount: int = 1) -> Deferred[int]:
        """
        Add to it; less than 0 takes away.

        Cancelling takes it back where it was not sent yet; later it may have been applied.

        :return: fires with the number after this addition and those before it.
        :raises NotACounter: the key holds something else; it is left as it is.
        :raises DeadlineExceeded: the time was over; it was not applied.
        :raises OutcomeUnknown: it may have been applied.
        """
        addition = _Addition(to_int(amount, "amount"), Deferred(lambda _: self._leave(addition)))
        addition.timer = self._clock.callLater(self._timeout, self._expire, addition)
        self._waiting.append(addition)
        if not self._working:
            self._working = True
            Deferred.fromCoroutine(self._work())
        return addition.done

    def set(self, value: int) -> Deferred[None]:
        """Make it that number, whatever it is; additions come before it, or after it."""
        putting = self._client.put(self.key, str(to_int(value, "value")), timeout=self._timeout)
        return putting.addCallback(_nothing)

    def reset(self) -> Deferred[None]:
        """Make it 0."""
        return self.set(0)

    # --- adding -----------------------------------------------------------------------------------------------------

    def _leave(self, addition: _Addition) -> None:
        """Nobody waits for it any more."""
        if addition in self._waiting:
            self._waiting.remove(addition)
        if addition.timer is not None and addition.timer.active():
            addition.timer.cancel()

    def _expire(self, addition: _Addition) -> None:
        self._leave(addition)
        within = f"{self.key!r} was not added to within {self._timeout:g} s"
        error = (
            OutcomeUnknown(f"{within}; it may have been, or may yet be: look before you add again")
            if addition.sent
            else DeadlineExceeded(f"{within}, and will not be")
        )
        addition.done.errback(error)

    async def _work(self) -> None:
        conflicts = 0
        while self._waiting:
            try:
                known = self._known or self._number(await self._client.get(self.key, timeout=self._timeout))
            except Exception:  # noqa: BLE001 - those who wait are told
                waiting, self._waiting = self._waiting, []
                self._fail(waiting, Failure())
                continue
            if await self._apply(known):
                self._backoff.reset()
                conflicts = 0
                continue
            conflicts += 1
            # After the first conflict the answer has brought what is there.
            if conflicts > 1:
                self._known = None
                await deferLater(self._clock, self._backoff.next())
        self._working = False

    async def _apply(self, known: _Known) -> bool:
        """Add all that waits; False where somebody else came between, and nothing was added."""
        batch, self._waiting = self._waiting, []
        if not batch:
            return True
        for addition in batch:
            addition.sent = True
        total = known.value + sum(addition.amount for addition in batch)
        self._known = None
        try:
            found = await self._put(total, known)
        except OutcomeUnknown as error:
            text = f"{self.key!r} may have been added to, or may yet be: look before you add again"
            self._fail(batch, Failure(OutcomeUnknown(text, error.tried)))
        except Exception:  # noqa: BLE001 - those who wait are told
            self._fail(batch, Failure())
        else:
            if found is not None:
                for addition in batch:
                    addition.sent = False
                self._waiting = [addition for addition in batch if not addition.done.called] + self._waiting
                return False
            self._tell(batch, known.value)
        return True

    async def _put(self, total: int, known: _Known) -> RangeResponse | None:
        """What is there, where it is something else than what is known, and nothing was put."""
        unchanged = compare.mod_revision(self.key, "=", known.mod_revision)
        done = await self._client.txn(
            compare=[unchanged],
            success=[op.put(self.key, str(total))],
            failure=[op.get(self.key)],
            timeout=self._timeout,
        )
        found = None if done.succeeded else done.responses[0].response_range
        self._known = _Known(total, done.header.revision) if found is None else self._number(found)
        return found

    def _tell(self, batch: list[_Addition], value: int) -> None:
        for addition in batch:
            value += addition.amount
            self._leave(addition)
            if not addition.done.called:
                addition.done.callback(value)

    def _fail(self, batch: list[_Addition], failure: Failure) -> None:
        for addition in batch:
            self._leave(addition)
            if not addition.done.called:
                addition.done.errback(Failure(failure.value))

    def _number(self, found: RangeResponse) -> _Known:
        if not found.kvs:
            return _Known()
        kv = found.kvs[0]
        if _NUMBER.fullmatch(kv.value) is None:
            raise NotACounter(self.key, len(kv.value))
        return _Known(int(kv.value), kv.mod_revision)


def _value(known: _Known) -> int:
    return known.value


def _nothing(_: PutResponse) -> None:
    return None
