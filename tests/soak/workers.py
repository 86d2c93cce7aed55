"""Those who write and read the registers, and tell what they were told."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from tests.soak.history import Operation, Registers
from tests.soak.ledger import Ledger
from tests.soak.linearizability import Read, State, Swap, Write
from tests.soak.report import Report
from tests.soak.truth import Fact
from twisted_etcd.client import compare, op
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.errors import DeadlineExceeded, EtcdError, OutcomeUnknown, ServiceStopped, Unavailable
from twisted_etcd.schema.kv import KeyValue

#: Seconds that operations get, the client's own time where it is None.
_TIMEOUTS = (None, None, None, 2.0, 0.5)


class Workload:
    """
    What all workers share.

    :param pair: two keys that are only written together.
    :ivar over: whether they are to end.
    """

    def __init__(
        self, clock: IReactorTime, registers: Registers, ledger: Ledger, report: Report, pair: tuple[str, str]
    ) -> None:
        self.over = False
        self.clock = clock
        self.registers = registers
        self.ledger = ledger
        self.report = report
        self.pair = pair
        self._values = 0

    def new_value(self) -> str:
        """One that nobody has written."""
        self._values += 1
        return f"v{self._values}"


class Worker:
    """
    One who does one thing after the other.

    :param pause: seconds between two of them, on average.
    """

    def __init__(self, workload: Workload, client: EtcdClient, random: Random, pause: float) -> None:
        self._all = workload
        self._client = client
        self._random = random
        self._pause = pause
        #: What it saw last, for each register.
        self._seen: dict[str, State] = {}

    async def write(self) -> None:
        """Write until the end."""
        kinds = (self._put, self._put, self._put, self._delete, self._swap, self._swap, self._put_pair)
        await self._work("writes", lambda: self._random.choice(kinds)(self._key()))

    async def read(self) -> None:
        """Read until the end."""
        await self._work("reads", lambda: self._get(self._key()))

    async def _work(self, service: str, begin: Callable[[], object]) -> None:
        while not self._all.over:
            await deferLater(self._all.clock, self._random.expovariate(1 / self._pause))
            try:
                await begin()  # type: ignore[misc]
            except ServiceStopped:
                return
            except (Unavailable, OutcomeUnknown, DeadlineExceeded, EtcdError) as error:
                self._all.report.failed(error)
            else:
                self._all.report.served(service, self._all.clock.seconds())

    def _key(self) -> str:
        return self._random.choice(self._all.registers.keys)

    def _timeout(self) -> float | None:
        return self._random.choice(_TIMEOUTS)

    # --- operations -------------------------------------------------------------------------------------------------

    async def _get(self, key: str) -> None:
        operation = self._all.registers.call(key, None)
        try:
            response = await self._client.get(key, timeout=self._timeout())
        except Exception:
            self._all.registers.unknown(operation)
            raise
        self._saw(operation, response.kvs)
        self._all.report.operations["get"] += 1

    async def _put(self, key: str) -> None:
        value = self._all.new_value()
        operation = self._all.registers.call(key, Write(value))
        try:
            response = await self._client.put(key, value, timeout=self._timeout())
        except Exception as error:
            self._failed(operation, value, error)
            raise
        self._wrote(operation, Write(value), response.header.revision)
        self._all.report.operations["put"] += 1

    async def _delete(self, key: str) -> None:
        operation = self._all.registers.call(key, Write(None))
        try:
            response = await self._client.delete(key, timeout=self._timeout())
        except Exception as error:
            self._failed(operation, None, error)
            raise
        self._all.registers.done(operation, Write(None))
        if response.deleted:
            self._all.ledger.acknowledged(response.header.revision, Fact(key, None))
        self._all.report.operations["delete"] += 1

    async def _swap(self, key: str) -> None:
        expected, value = self._seen.get(key), self._all.new_value()
        operation = self._all.registers.call(key, Swap(expected, value))
        holds = compare.version(key, "=", 0) if expected is None else compare.value(key, "=", expected)
        try:
            response = await self._client.txn([holds], [op.put(key, value)], [op.get(key)], timeout=self._timeout())
        except Exception as error:
            self._failed(operation, value, error)
            raise
        if response.succeeded:
            self._seen[key] = value
            self._wrote(operation, Swap(expected, value), response.header.revision)
        else:
            found = response.responses[0].response_range
            self._saw(operation, () if found is None else found.kvs)
        self._all.report.operations["compare and set"] += 1

    async def _put_pair(self, _key: str) -> None:
        value = self._all.new_value()
        one, other = self._all.pair
        try:
            response = await self._client.txn(
                success=[op.put(one, value), op.put(other, value)], timeout=self._timeout()
            )
        except Exception as error:
            if _is_certain(error):
                self._all.ledger.refused(value)
            raise
        self._all.ledger.acknowledged(response.header.revision, Fact(one, value), Fact(other, value))
        self._all.report.operations["put of two"] += 1

    # --- what they were told ----------------------------------------------------------------------------------------

    def _saw(self, operation: Operation, kvs: tuple[KeyValue, ...]) -> None:
        value = kvs[0].value.decode() if kvs else None
        self._seen[operation.key] = value
        self._all.registers.done(operation, Read(value))

    def _wrote(self, operation: Operation, effect: Write | Swap, revision: int) -> None:
        self._all.registers.done(operation, effect)
        in_company = isinstance(effect, Write)
        self._all.ledger.acknowledged(revision, Fact(operation.key, effect.value), in_company=in_company)

    def _failed(self, operation: Operation, value: str | None, error: Exception) -> None:
        if not _is_certain(error):
            self._all.registers.unknown(operation)
            return
        self._all.registers.not_applied(operation)
        if value is not None:
            self._all.ledger.refused(value)


def _is_certain(error: Exception) -> bool:
    """Whether the error says that a write was certainly not applied: it was not sent, or etcd refused it."""
    return isinstance(error, Unavailable | EtcdError)
