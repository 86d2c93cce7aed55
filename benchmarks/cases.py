"""The table of cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

OURS = "ours"
#: The peers by the names of their distributions, in the order of the table's columns.
PEERS = ("aetcd", "etcd-client-py", "etcd3gw")
CLIENTS = (OURS, *PEERS)

_ALL = CLIENTS
_ASYNCHRONOUS = (OURS, "aetcd", "etcd-client-py")
#: Seconds for one turn of one client, unless a case says otherwise.
_LIMIT = 90.0


@dataclass(frozen=True)
class Metric:
    """
    What is told of a case.

    :ivar more_is_better: as with rates.
    """

    name: str
    unit: str
    more_is_better: bool = False


@dataclass(frozen=True)
class Case:
    """
    One thing that is measured.

    :ivar what: one line.
    :ivar do: the scenario of the worker.
    :ivar clients: those that can; the others show a dash.
    :ivar full: the scenario's parameters.
    :ivar quick: those that are different in a quick run.
    :ivar filled: whether the keys below the prefix are written before, as many as ``keys`` says.
    :ivar fed: parameters of what another process writes while a client watches, or, where ``past``, before.
    :ivar fed_quick: those that are different in a quick run.
    :ivar feeder: the scenario of that process.
    :ivar fresh: whether each turn has a process of its own.
    :ivar rounds: the most that there are, where one is enough.
    :ivar kinds: the worker of a client, where it is another than usual.
    :ivar late: whether etcd answers half a second late.
    :ivar limit: seconds for one turn.
    """

    name: str
    what: str
    do: str
    metrics: Sequence[Metric]
    clients: Sequence[str]
    full: Mapping[str, Any] = field(default_factory=dict)
    quick: Mapping[str, Any] = field(default_factory=dict)
    filled: int = 0
    fed: Mapping[str, Any] = field(default_factory=dict)
    fed_quick: Mapping[str, Any] = field(default_factory=dict)
    feeder: str = "feed"
    past: bool = False
    fresh: bool = False
    rounds: int | None = None
    kinds: Mapping[str, str] = field(default_factory=dict)
    late: bool = False
    limit: float = _LIMIT

    def parameters(self, *, quick: bool) -> dict[str, Any]:
        """What the worker is told."""
        return {**self.full, **(self.quick if quick else {})}

    def feed(self, *, quick: bool) -> dict[str, Any]:
        """What the process that writes is told; empty where nobody writes."""
        return {**self.fed, **(self.fed_quick if quick else {})}

    def smaller(self) -> str:
        """What a quick run does less of, in words; empty where it only measures for a shorter time."""
        changed = {**self.quick, **self.fed_quick}
        changed = {name: value for name, value in changed.items() if name not in {"span", "warm_up", "times"}}
        return ", ".join(f"{name} {value:,}" for name, value in changed.items())


_P50, _P99 = Metric("p50", "ms"), Metric("p99", "ms")
_RATE, _CPU = Metric("rate", "/s", more_is_better=True), Metric("cpu", "µs")
_FOUR = (_P50, _P99, _RATE, _CPU)
_SPAN = {"span": 1.0, "warm_up": 0.3}
_QUICK_SPAN = {"span": 0.25, "warm_up": 0.05}
_CALLERS = (1, 16, 64, 256)
#: The first number of keys that gets go to.
_KEYS = 1000


def _number_of(callers: int) -> str:
    return f"{callers} caller{'s' if callers > 1 else ''}"


def _callers(do: str, plural: str, filled: int = 0) -> list[Case]:
    return [
        Case(
            name=f"{do}-{callers}",
            what=f"{plural} of single keys, {_number_of(callers)}",
            do=do,
            metrics=_FOUR,
            clients=_ALL if callers == 1 else _ASYNCHRONOUS,
            full={"callers": callers, **_SPAN},
            quick=_QUICK_SPAN,
            filled=filled,
        )
        for callers in _CALLERS
    ]


CASES: tuple[Case, ...] = (
    *_callers("get", "gets", _KEYS),
    *_callers("put", "puts"),
    Case(
        name="range-10000",
        what="a range of 10,000 keys in one request",
        do="range",
        metrics=(Metric("time", "ms"), Metric("cpu", "ms")),
        clients=_ALL,
        full={"keys": 10_000, "times": 10},
        quick={"times": 3},
        filled=10_000,
    ),
    Case(
        name="scan-100000",
        what="100,000 keys, by pages of 1,000 where the client can",
        do="scan",
        metrics=(Metric("time", "ms"), Metric("cpu", "ms")),
        # etcd-client-py takes no limit, and no answer over 4 MiB.
        clients=(OURS, "aetcd", "etcd3gw"),
        full={"keys": 100_000, "times": 2},
        quick={"keys": 20_000, "times": 1},
        filled=100_000,
    ),
    Case(
        name="txn-100",
        what="transactions of 100 puts and a comparison, 1 caller",
        do="transaction",
        metrics=_FOUR,
        clients=_ALL,
        full={"size": 100, **_SPAN},
        quick=_QUICK_SPAN,
    ),
    Case(
        name="watch-delay",
        what="from a put to its event, one watcher, as another process writes a put every 2 ms",
        do="watch_delay",
        metrics=(_P50, _P99),
        clients=_ALL,
        full={"events": 1_000},
        quick={"events": 200},
        fed={"events": 1_000, "pause": 0.002},
        fed_quick={"events": 200},
        feeder="feed_slowly",
    ),
    Case(
        name="put-event",
        what="from a put until its answer and its event are there, the same client doing both",
        do="put_event",
        metrics=(_P50, _P99),
        clients=_ALL,
        full=_SPAN,
        quick=_QUICK_SPAN,
    ),
    Case(
        name="watch-live",
        what="20,000 events into one watcher as another process writes them, each a revision of its own",
        do="watch_live",
        metrics=(_RATE, _CPU),
        clients=_ASYNCHRONOUS,
        full={"events": 20_000},
        quick={"events": 1_000},
        fed={"keys": 1000, "events": 20_000, "size": 1, "callers": 64},
        fed_quick={"events": 1_000},
    ),
    Case(
        name="watch-live-16",
        what="the same, 16 events in a revision",
        do="watch_live",
        metrics=(_RATE, _CPU),
        clients=_ASYNCHRONOUS,
        full={"events": 20_000},
        quick={"events": 4_000},
        fed={"keys": 1000, "events": 20_000, "size": 16, "callers": 16},
        fed_quick={"events": 4_000},
    ),
    Case(
        name="watch-replay",
        what="20,000 past events replayed to one watcher, each a revision of its own",
        do="watch_replay",
        metrics=(_RATE, _CPU),
        clients=(OURS, "aetcd"),
        full={"events": 20_000},
        quick={"events": 3_000},
        fed={"keys": 1000, "events": 20_000, "size": 1, "callers": 64},
        fed_quick={"events": 3_000},
        past=True,
    ),
    Case(
        name="watchers-1000",
        what="10,000 events into 1,000 watchers on distinct keys, as another process writes them",
        do="watchers",
        metrics=(_RATE, _CPU),
        clients=_ASYNCHRONOUS,
        full={"keys": 1_000, "events": 10_000},
        quick={"events": 2_000},
        fed={"keys": 1_000, "events": 10_000, "size": 10, "callers": 16},
        fed_quick={"events": 2_000},
        fresh=True,
    ),
    Case(
        name="watches-10000",
        what="creation of 10,000 watches on distinct keys: time, memory of the client for each, connections; ours on "
        "one WebSocket alone (own_streams=0)",
        do="watch_creation",
        metrics=(Metric("time", "s"), Metric("memory", "KiB"), Metric("connections", "")),
        clients=_ASYNCHRONOUS,
        full={"watches": 10_000},
        quick={"watches": 1_000},
        kinds={OURS: "ours-on-one-websocket"},
        fresh=True,
    ),
    Case(
        name="keepalive-10000",
        what="10,000 leases of 30 s kept alive, each confirmed every 10 s: share of one core, connections",
        do="keepalive",
        metrics=(Metric("cpu", "%"), Metric("connections", "")),
        clients=(OURS, "aetcd"),
        full={"leases": 10_000, "ttl": 30, "span": 20.0},
        quick={"leases": 1_000, "ttl": 3, "span": 2.0},
        fresh=True,
        limit=180.0,
    ),
    *(
        Case(
            name=f"message-{callers}",
            what=f"round trips of messages through a Node, {_number_of(callers)}",
            do="messages",
            metrics=(Metric("p50", "µs"), Metric("p99", "µs"), _RATE, _CPU),
            clients=(OURS,),
            full={"callers": callers, **_SPAN},
            quick=_QUICK_SPAN,
        )
        for callers in (1, 64)
    ),
    *(
        Case(
            name=f"service-get-{callers}",
            what=f"gets through EtcdService, and straight from its client, {_number_of(callers)}",
            do="service_get",
            metrics=(
                _RATE,
                Metric("direct", "/s", more_is_better=True),
                Metric("share", "of direct", more_is_better=True),
            ),
            clients=(OURS,),
            full={"callers": callers, **_SPAN},
            quick=_QUICK_SPAN,
            filled=_KEYS,
        )
        for callers in (1, 64)
    ),
    Case(
        name="late-etcd",
        what="a message in the node while etcd answers 500 ms late; etcd3gw: in the reactor's thread, by a service",
        do="late",
        metrics=(_P50, _P99),
        clients=(OURS, "etcd3gw"),
        full={"span": 4.0},
        quick={"span": 0.8},
        kinds={"etcd3gw": "etcd3gw-in-reactor"},
        fresh=True,
        late=True,
    ),
    Case(
        name="import",
        what="the import: beyond the loop (Twisted's reactor with treq, asyncio) of the program, and in all",
        do="import",
        metrics=(Metric("beyond", "ms"), Metric("total", "ms")),
        clients=_ALL,
        fresh=True,
    ),
    Case(
        name="memory",
        what="after 1,000,000 operations by 64 callers, one in ten a put: memory, and what the second half added",
        do="memory",
        metrics=(Metric("rss", "MiB"), Metric("growth", "MiB")),
        clients=_ASYNCHRONOUS,
        full={"operations": 1_000_000, "callers": 64},
        quick={"operations": 2_000},
        filled=_KEYS,
        fresh=True,
        rounds=1,
        limit=1800.0,
    ),
)
