"""
What a client is asked to do, the same for each of them.

A scenario takes a client and its parameters and returns figures by the names of the case's metrics. One that needs
somebody else to write says when it is ready for that.
"""

from __future__ import annotations

import gc
import itertools
import time
from array import array
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any

from benchmarks.clients.client import Client, Connect
from benchmarks.measuring import (
    MICROSECOND,
    MILLISECOND,
    Stopwatch,
    connections_to,
    latency_figures,
    median,
    percentile,
    resident_bytes,
)

#: By the names of metrics; two scenarios give times, of which another part makes a metric.
Figures = dict[str, Any]
#: Says that somebody else may write now.
Ready = Callable[[], None]
Operation = Callable[[int], Awaitable[object]]

VALUE = b"v" * 64
#: How many keys gets and puts are spread over.
KEYS = 1000
#: How many requests are under way while something is prepared.
_SIDE_BY_SIDE = 64
#: Watches that are created side by side, so that what their creation needs for a moment stays small.
_WATCHES_AT_A_TIME = 500
_KIBIBYTE = 1024
_MEBIBYTE = 1024 * 1024


def key_of(prefix: str, number: int) -> bytes:
    """The name of a key."""
    return f"{prefix}{number:08d}".encode()


async def closed_loop(client: Client, operation: Operation, callers: int, span: float, warm_up: float) -> Figures:
    """
    So many callers, each of which asks again as soon as it has been answered.

    :param operation: what they do; it is given numbers that go on.
    :param span: seconds that are measured.
    :param warm_up: seconds before that.
    """
    numbers = itertools.count()
    await _until(client, operation, callers, time.perf_counter() + warm_up, numbers)
    watch = Stopwatch()
    latencies = await _until(client, operation, callers, time.perf_counter() + span, numbers)
    return {**latency_figures(latencies, watch.stop())}


async def _until(
    client: Client, operation: Operation, callers: int, end: float, numbers: Iterator[int]
) -> array[float]:
    latencies = array("d")
    clock = time.perf_counter

    async def caller() -> None:
        while (began := clock()) < end:
            await operation(next(numbers))
            latencies.append(clock() - began)

    await client.loop.gather(caller() for _ in range(callers))
    return latencies


async def repeat(client: Client, operation: Operation, times: int, callers: int) -> None:
    """Do it so many times in all, by several callers."""
    numbers = iter(range(times))

    async def caller() -> None:
        for number in numbers:
            await operation(number)

    await client.loop.gather(caller() for _ in range(callers))


# --- key-values -----------------------------------------------------------------------------------------------------


async def fill(client: Client, _: Ready, *, prefix: str, keys: int) -> Figures:
    """Write keys, a hundred in a transaction."""

    async def write(number: int) -> None:
        first = number * 100
        await client.put_all([key_of(prefix, each) for each in range(first, min(first + 100, keys))], VALUE)

    await repeat(client, write, -(-keys // 100), 4)
    return {}


async def get(client: Client, _: Ready, *, prefix: str, callers: int, span: float, warm_up: float) -> Figures:
    """Gets of single keys."""
    names = [key_of(prefix, number) for number in range(KEYS)]
    return await closed_loop(client, lambda number: client.get(names[number % KEYS]), callers, span, warm_up)


async def put(client: Client, _: Ready, *, prefix: str, callers: int, span: float, warm_up: float) -> Figures:
    """Puts of single keys."""
    names = [key_of(prefix, number) for number in range(KEYS)]
    return await closed_loop(client, lambda number: client.put(names[number % KEYS], VALUE), callers, span, warm_up)


async def transaction(client: Client, _: Ready, *, prefix: str, size: int, span: float, warm_up: float) -> Figures:
    """Transactions of that many puts, one caller."""
    names = [key_of(prefix, number) for number in range(size)]
    return await closed_loop(client, lambda _: client.put_all(names, VALUE), 1, span, warm_up)


async def read_range(client: Client, _: Ready, *, prefix: str, keys: int, times: int) -> Figures:
    """All keys below a prefix in one request."""
    return await _read(client.read_range, prefix, keys, times)


async def scan(client: Client, _: Ready, *, prefix: str, keys: int, times: int) -> Figures:
    """All keys below a prefix, by pages where the client can."""
    return await _read(client.scan, prefix, keys, times)


async def _read(read: Callable[[bytes], Awaitable[int]], prefix: str, keys: int, times: int) -> Figures:
    # The first one warms up.
    lasted, watch = [], Stopwatch()
    for number in range(times + 1):
        watch = Stopwatch() if number == 1 else watch
        began = time.perf_counter()
        found = await read(prefix.encode())
        lasted.append(time.perf_counter() - began)
        if found != keys:
            msg = f"{found} keys were read in place of {keys}"
            raise RuntimeError(msg)
    return {"time": median(lasted[1:]) / MILLISECOND, "cpu": watch.stop().cpu / times / MILLISECOND}


async def memory(client: Client, _: Ready, *, prefix: str, operations: int, callers: int) -> Figures:
    """Memory after so many operations, of which one in ten is a put, and how much the second half has added."""
    names = [key_of(prefix, number) for number in range(KEYS)]

    def operation(number: int) -> Awaitable[object]:
        name = names[number % KEYS]
        return client.get(name) if number % 10 else client.put(name, VALUE)

    sizes = []
    for _half in range(2):
        await repeat(client, operation, operations // 2, callers)
        gc.collect()
        sizes.append(resident_bytes())
    first, second = sizes
    if first is None or second is None:
        return {"rss": None, "growth": None}
    return {"rss": second / _MEBIBYTE, "growth": (second - first) / _MEBIBYTE}


# --- watches --------------------------------------------------------------------------------------------------------


async def feed(client: Client, _: Ready, *, prefix: str, keys: int, events: int, size: int, callers: int) -> Figures:
    """
    Write, for others who watch: so many events, spread over so many keys.

    :param size: puts in a transaction, all at one revision.
    """

    async def write(number: int) -> None:
        await client.put_all([key_of(prefix, (number * size + each) % keys) for each in range(size)], VALUE)

    await repeat(client, write, events // size, callers)
    return {}


async def feed_slowly(client: Client, _: Ready, *, prefix: str, events: int, pause: float) -> Figures:
    """
    Write one key over and over, for somebody who watches it: ``sent`` are the times.

    :param pause: seconds between two puts.
    """
    sent = []
    for _number in range(events):
        await client.loop.sleep(pause)
        sent.append(time.perf_counter())
        await client.put(key_of(prefix, 0), VALUE)
    return {"sent": sent}


class _Arrivals:
    """
    Counts events until all have come.

    :param expected: how many there will be.
    """

    def __init__(self, client: Client, expected: int) -> None:
        self.all_there = client.loop.signal()
        self.count = 0
        self._expected = expected
        self._began = 0.0
        self._ended = 0.0
        self._first = 0

    def came(self, count: int) -> None:
        """So many more."""
        now = time.perf_counter()
        if not self.count:
            self._began, self._first = now, count
        self.count += count
        if self.count >= self._expected:
            self._ended = now
            self.all_there.fire()

    def figures(self, used: Stopwatch) -> Figures:
        """``rate`` a second between the first and the last, ``cpu`` in µs for each."""
        lasted = self._ended - self._began
        rate = (self.count - self._first) / lasted if lasted > 0 else None
        return {"rate": rate, "cpu": used.cpu / self.count / MICROSECOND}


async def watch_delay(client: Client, ready: Ready, *, prefix: str, events: int) -> Figures:
    """Events into one watch, as somebody else writes them: ``arrived`` are the times."""
    arrived: list[float] = []
    all_there = client.loop.signal()

    def came(count: int) -> None:
        arrived.extend([time.perf_counter()] * count)
        if len(arrived) >= events:
            all_there.fire()

    await client.watch(key_of(prefix, 0), came)
    ready()
    await all_there.wait()
    return {"arrived": arrived}


async def put_event(client: Client, _: Ready, *, prefix: str, span: float, warm_up: float) -> Figures:
    """From a put until its answer and its event are there, one after the other, the same client doing both."""
    name = key_of(prefix, 0)
    signals = [client.loop.signal()]
    await client.watch(name, lambda _count: signals[-1].fire())
    delays = array("d")
    for length in (warm_up, span):
        del delays[:]
        end = time.perf_counter() + length
        while (began := time.perf_counter()) < end:
            arrived = client.loop.signal()
            signals.append(arrived)
            await client.put(name, VALUE)
            await arrived.wait()
            delays.append(time.perf_counter() - began)
            del signals[:-1]
    return {"p50": percentile(delays, 0.5) / MILLISECOND, "p99": percentile(delays, 0.99) / MILLISECOND}


async def watch_live(client: Client, ready: Ready, *, prefix: str, events: int) -> Figures:
    """Events into one watch, as somebody else writes them."""
    arrivals = _Arrivals(client, events)
    await client.watch(prefix.encode(), arrivals.came, prefix=True)
    watch = Stopwatch()
    ready()
    await arrivals.all_there.wait()
    return arrivals.figures(watch.stop())


async def watch_replay(client: Client, _: Ready, *, prefix: str, events: int, start_revision: int) -> Figures:
    """Events that are past, into one watch."""
    arrivals = _Arrivals(client, events)
    watch = Stopwatch()
    began = time.perf_counter()
    await client.watch(prefix.encode(), arrivals.came, prefix=True, start_revision=start_revision)
    await arrivals.all_there.wait()
    lasted = time.perf_counter() - began
    # From the request on, since they may all come with its answer.
    return {**arrivals.figures(watch.stop()), "rate": events / lasted}


async def watchers(client: Client, ready: Ready, *, prefix: str, keys: int, events: int) -> Figures:
    """Events into many watches, each of a key of its own, as somebody else writes them."""
    arrivals = _Arrivals(client, events)
    await client.loop.gather(client.watch(key_of(prefix, number), arrivals.came) for number in range(keys))
    watch = Stopwatch()
    ready()
    await arrivals.all_there.wait()
    return arrivals.figures(watch.stop())


async def watch_creation(client: Client, _: Ready, *, prefix: str, watches: int) -> Figures:
    """Create many watches: ``time`` in s, ``memory`` in KiB for each, ``connections``."""
    await client.watch(key_of(prefix, watches), lambda _count: None)
    gc.collect()
    before = resident_bytes()
    began = time.perf_counter()
    for first in range(0, watches, _WATCHES_AT_A_TIME):
        numbers = range(first, min(first + _WATCHES_AT_A_TIME, watches))
        await client.loop.gather(client.watch(key_of(prefix, number), lambda _count: None) for number in numbers)
    lasted = time.perf_counter() - began
    gc.collect()
    after = resident_bytes()
    memory = None if before is None or after is None else (after - before) / watches / _KIBIBYTE
    return {"time": lasted, "memory": memory, "connections": connections_to(client.port)}


# --- leases ---------------------------------------------------------------------------------------------------------


async def keepalive(client: Client, _: Ready, *, leases: int, ttl: int, span: float) -> Figures:
    """
    Keep leases alive, each confirmed every third of its TTL: ``cpu`` in percent of one core, ``connections``.

    A client that keeps none by itself is asked to for one after the other, evenly, a hundred at a time.
    """
    granted: list[Any] = []

    async def grant(_number: int) -> None:
        granted.append(await client.grant(ttl))

    # Those that are kept meanwhile can be granted one after the other, which leaves no connections that nobody needs.
    await repeat(client, grant, leases, 1 if client.keeps_leases else _SIDE_BY_SIDE)

    async def keep_all() -> None:
        parts = [granted[first : first + 100] for first in range(0, leases, 100)]
        end = time.perf_counter() + span
        due = time.perf_counter()
        for part in itertools.cycle(parts):
            if due >= end:
                break
            await client.loop.gather(client.keep(lease) for lease in part)
            due += ttl / 3 / len(parts)
            await client.loop.sleep(max(0.0, due - time.perf_counter()))

    watch = Stopwatch()
    if client.keeps_leases:
        await client.loop.sleep(span)
    else:
        await keep_all()
    used = watch.stop()
    connections = connections_to(client.port)
    # None of them may have been lost.
    await repeat(client, lambda number: client.keep(granted[number]), leases, _SIDE_BY_SIDE)
    await repeat(client, lambda number: client.revoke(granted[number]), leases, _SIDE_BY_SIDE)
    return {"cpu": used.cpu / used.seconds * 100, "connections": connections}


# --- by name --------------------------------------------------------------------------------------------------------

Scenario = Callable[..., Coroutine[Any, Any, Figures]]
#: Those that every kind of client goes through.
SCENARIOS: dict[str, Scenario] = {
    "fill": fill,
    "feed": feed,
    "feed_slowly": feed_slowly,
    "get": get,
    "put": put,
    "transaction": transaction,
    "range": read_range,
    "scan": scan,
    "memory": memory,
    "watch_delay": watch_delay,
    "put_event": put_event,
    "watch_live": watch_live,
    "watch_replay": watch_replay,
    "watchers": watchers,
    "watch_creation": watch_creation,
    "keepalive": keepalive,
}


async def perform(
    connect: Connect, scenario: Scenario, ready: Ready, endpoint: str, parameters: dict[str, Any]
) -> Figures:
    """Go through a scenario with a client of its own."""
    client = await connect(endpoint)
    try:
        return await scenario(client, ready, **parameters)
    finally:
        await client.close()
