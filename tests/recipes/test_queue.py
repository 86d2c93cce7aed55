"""Queues: what every server and every stand-in for one must do with them."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import CancelledError, Deferred, gatherResults

from tests.client.conftest import MakeClient
from tests.guards import LoggedErrors
from tests.recipes.lines import line_of, pending, until_line
from tests.recipes.test_barrier import WatchedFor
from tests.recipes.test_lock_faults import Cut
from tests.wire import soon
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.errors import InvalidSettings, OutcomeUnknown, RecipeError, ServiceStopped, WaitTimedOut
from twisted_etcd.recipes.queue import PriorityQueue, Queue
from twisted_etcd.testing.proxy import FaultProxy

IN_MEMORY_TOO = True


@ensureDeferred
async def test_what_is_put_in_first_is_taken_first(client: EtcdClient, prefix: str) -> None:
    queue = Queue(client, prefix + "q")
    for number in range(5):
        await queue.enqueue(str(number))
    keys = [kv.key.decode() for kv in await line_of(client, prefix)]
    # As Go names them: by the time in nanoseconds.
    assert {key.rpartition("/")[0] for key in keys} == {prefix + "q"}
    assert all(len(key.rpartition("/")[2]) == 19 for key in keys)
    assert {(kv.lease, kv.value) for kv in await line_of(client, prefix)} == {(0, b"%d" % n) for n in range(5)}
    assert await queue.size() == 5
    assert [await queue.dequeue() for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]
    assert await queue.size() == 0


@ensureDeferred
async def test_the_order_is_that_of_the_revisions_whatever_the_keys_are(client: EtcdClient, prefix: str) -> None:
    for key in ("9", "8", "x"):
        await client.put(f"{prefix}q/{key}", key)
    # Another queue, for us; Go takes it for this one.
    await client.put(f"{prefix}q2/1", "other")
    queue = Queue(client, prefix + "q")
    assert [await queue.dequeue() for _ in range(3)] == [b"9", b"8", b"x"]
    assert await queue.size() == 0


@ensureDeferred
async def test_the_lowest_priority_is_taken_first_and_then_the_order(client: EtcdClient, prefix: str) -> None:
    queue = PriorityQueue(client, prefix + "p")
    for value, priority in (("c", 65535), ("b1", 7), ("a", 0), ("b2", 7)):
        await queue.enqueue(value, priority)
    assert [kv.key.decode() for kv in (await client.get(prefix, prefix=True)).kvs] == [
        f"{prefix}p/00000/0000000000000000",
        f"{prefix}p/00007/0000000000000000",
        f"{prefix}p/00007/0000000000000001",
        f"{prefix}p/65535/0000000000000000",
    ]
    # What Go keeps beside them.
    marks = (await client.get(f"__{prefix}p/", prefix=True)).kvs
    assert [(kv.key.decode(), kv.value) for kv in marks] == [
        (f"__{prefix}p/00000", b""),
        (f"__{prefix}p/00007", b""),
        (f"__{prefix}p/65535", b""),
    ]
    assert await queue.size() == 4
    assert [await queue.dequeue() for _ in range(4)] == [b"a", b"b1", b"b2", b"c"]


@ensureDeferred
async def test_two_that_put_at_once_take_different_numbers(client: EtcdClient, prefix: str) -> None:
    queue = PriorityQueue(client, prefix + "p")
    await soon(gatherResults([queue.enqueue(str(number), 1) for number in range(20)]))
    assert await queue.size() == 20
    assert {await queue.dequeue() for _ in range(20)} == {b"%d" % number for number in range(20)}


@pytest.mark.parametrize("kind", [Queue, PriorityQueue])
@ensureDeferred
async def test_each_item_is_taken_once_by_one_of_many(
    client: EtcdClient,
    make_client: MakeClient,
    prefix: str,
    kind: Any,  # noqa: ANN401
) -> None:
    queues = [kind(make_client(), prefix + "q") for _ in range(6)]
    taken: list[bytes] = []

    async def consume(queue: Any) -> None:  # noqa: ANN401
        while (value := await queue.dequeue()) != b"end":
            taken.append(value)

    consuming = [Deferred.fromCoroutine(consume(queue)) for queue in queues]

    async def produce(queue: Any, first: int) -> None:  # noqa: ANN401
        for number in range(first, first + 30):
            await (queue.enqueue(str(number)) if kind is Queue else queue.enqueue(str(number), number % 3))

    await soon(gatherResults([Deferred.fromCoroutine(produce(kind(client, prefix + "q"), n)) for n in (0, 30)]))
    for queue in queues:
        await (queue.enqueue("end") if kind is Queue else queue.enqueue("end", 9))
    await soon(gatherResults(consuming))
    assert sorted(taken, key=int) == [b"%d" % number for number in range(60)]


@pytest.mark.parametrize("kind", [Queue, PriorityQueue])
@ensureDeferred
async def test_who_takes_from_an_empty_one_waits(client: EtcdClient, prefix: str, kind: Any) -> None:  # noqa: ANN401
    queue = kind(client, prefix + "q")
    with pytest.raises(WaitTimedOut, match=r"nothing was in the queue b'.*q' within 0\.05 s"):
        await soon(queue.dequeue(timeout=0.05))
    waiting = queue.dequeue()
    await client.get(prefix)
    assert pending(waiting)
    await (queue.enqueue("came") if kind is Queue else queue.enqueue("came", 1))
    assert await soon(waiting) == b"came"


@ensureDeferred
async def test_who_waits_goes_on_while_etcd_is_away_and_its_past_is_compacted(
    proxy: FaultProxy, make_client: MakeClient, client: EtcdClient, prefix: str
) -> None:
    proxied = make_client(endpoints=proxy.endpoint, request_timeout=0.5)
    watched = WatchedFor(proxied)
    waiting = Queue(proxied, prefix + "q").dequeue()
    await soon(watched.confirmed)
    await proxy.refuse()
    await proxy.reset()
    await Queue(client, prefix + "q").enqueue("came")
    revision = (await client.put(prefix + "other", "")).header.revision
    await client.compact(revision)
    await proxy.heal()
    assert await soon(waiting) == b"came"


class Held:
    """Holds the answers to a client's transactions back, and knows when there is one."""

    def __init__(self, client: Any) -> None:  # noqa: ANN401 - its method is replaced
        self.answered: Deferred[None] = Deferred()
        self._answer: Deferred[Any] = Deferred()
        original = client.txn

        def ask(*args: Any, **options: Any) -> Any:  # noqa: ANN401
            client.txn = original
            asked = original(*args, **options)

            def hold(result: Any) -> Any:  # noqa: ANN401
                self.answered.callback(None)
                return self._answer.addCallback(lambda _: result)

            return asked.addCallback(hold)

        client.txn = ask

    def let_go(self) -> None:
        self._answer.callback(None)


@pytest.mark.parametrize("kind", [Queue, PriorityQueue])
@ensureDeferred
async def test_what_was_taken_for_one_who_gave_up_is_put_back(
    client: EtcdClient,
    make_client: MakeClient,
    prefix: str,
    kind: Any,  # noqa: ANN401
) -> None:
    queue = kind(client, prefix + "q")
    for value in ("1", "2"):
        await (queue.enqueue(value) if kind is Queue else queue.enqueue(value, 3))
    other = make_client()
    held = Held(other)
    taking = kind(other, prefix + "q").dequeue()
    await soon(held.answered)
    taking.cancel()
    with pytest.raises(CancelledError):
        await soon(taking)
    await until_line(client, prefix, lambda count: count == 1)
    held.let_go()
    await until_line(client, prefix, lambda count: count == 2)
    # By the priority and the number it has its old place; else it is at the end.
    expected = [b"2", b"1"] if kind is Queue else [b"1", b"2"]
    assert [await queue.dequeue() for _ in range(2)] == expected


@ensureDeferred
async def test_an_item_that_went_nobody_knows_where_is_an_outcome_unknown(
    proxy: FaultProxy, make_client: MakeClient, client: EtcdClient, prefix: str
) -> None:
    queue = Queue(client, prefix + "q")
    await queue.enqueue("1")
    proxied = make_client(endpoints=proxy.endpoint)
    cut = Cut(proxied, proxy)
    cut.next("txn")
    with pytest.raises(OutcomeUnknown):
        await soon(Queue(proxied, prefix + "q").dequeue())
    assert cut.done
    assert await queue.size() == 0


@ensureDeferred
async def test_a_request_that_was_cut_off_on_its_way_takes_the_item_in_the_end(
    proxy: FaultProxy, make_client: MakeClient, client: EtcdClient, prefix: str
) -> None:
    await Queue(client, prefix + "q").enqueue("1")
    proxied = make_client(endpoints=proxy.endpoint, request_timeout=0.3)
    txn: Any = proxied.txn

    def swallowed(*args: Any, **options: Any) -> Any:  # noqa: ANN401
        cast_client: Any = proxied
        cast_client.txn = txn
        proxy.swallow("requests")
        return txn(*args, **options).addBoth(lambda result: proxy.heal().addCallback(lambda _: result))

    proxied.txn = swallowed  # type: ignore[method-assign]
    assert await soon(Queue(proxied, prefix + "q").dequeue()) == b"1"


@ensureDeferred
async def test_the_stop_of_a_client_ends_the_waiting(make_client: MakeClient, prefix: str) -> None:
    client = make_client()
    waiting = [kind(client, prefix + "q").dequeue() for kind in (Queue, PriorityQueue)]
    await client.get(prefix)
    await soon(client.stopService())
    for each in waiting:
        with pytest.raises(ServiceStopped):
            await soon(each)


@ensureDeferred
async def test_a_stop_in_the_middle_of_taking_is_told_of(
    client: EtcdClient, make_client: MakeClient, prefix: str, logged_errors: LoggedErrors
) -> None:
    await Queue(client, prefix + "q").enqueue("1")
    other = make_client()
    held = Held(other)
    taking = Queue(other, prefix + "q").dequeue()
    await soon(held.answered)
    await soon(other.stopService())
    with pytest.raises(ServiceStopped):
        await soon(taking)
    held.let_go()
    assert logged_errors.left() == []


@ensureDeferred
async def test_what_is_no_item_of_a_priority_queue_is_named(client: EtcdClient, prefix: str) -> None:
    await client.put(prefix + "p/00001/stranger", "")
    with pytest.raises(RecipeError, match=r"the key b'.*p/00001/stranger' in the queue .* ends in no number"):
        await PriorityQueue(client, prefix + "p").enqueue("1", 1)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda client: Queue(client, ""), InvalidSettings, "the name of a queue is empty"),
        (lambda client: PriorityQueue(client, 7), TypeError, "name must be str or bytes, not int"),  # type: ignore[arg-type]
        (lambda _: Queue("client", "a"), TypeError, "the first argument must be an EtcdClient, not str"),  # type: ignore[arg-type]
        (lambda client: Queue(client, "a").enqueue(7), TypeError, "value must be str or bytes, not int"),  # type: ignore[arg-type]
        (lambda client: Queue(client, "a").dequeue(timeout=0), ValueError, "timeout must be more than 0"),
        (lambda c: PriorityQueue(c, "a").enqueue("x", 65536), InvalidSettings, "from 0 to 65535, not 65536"),
        (lambda c: PriorityQueue(c, "a").enqueue("x", -1), InvalidSettings, "from 0 to 65535, not -1"),
        (lambda c: PriorityQueue(c, "a").enqueue("x", "1"), TypeError, "priority must be an int, not str"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(client: EtcdClient, make: Any, error: Any, words: str) -> None:  # noqa: ANN401
    with pytest.raises(error, match=words):
        make(client)
