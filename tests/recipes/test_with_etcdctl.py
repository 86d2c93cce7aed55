"""``etcdctl lock`` and ``etcdctl elect`` in one line with ours."""

from __future__ import annotations

import itertools
import signal
from pathlib import Path

from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, gatherResults

from tests.client.conftest import MakeClient
from tests.etcdctl import etcdctl
from tests.programs import Run
from tests.recipes.lines import line_of, pending, until_line
from tests.wire import PATIENCE, soon
from twisted_etcd.client import op
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.embedded.process import EmbeddedEtcd
from twisted_etcd.recipes.election import Election
from twisted_etcd.recipes.lock import Lock

#: How often the lock is to pass from one side to the other.
ALTERNATIONS = 200
#: What ``etcdctl lock`` runs while it holds the lock. The marker cannot be made where it is there; the sum loses a
#: number where two add to it at once; the history is what came when.
THEIR_TURN = """
set -C
echo "enter $ETCD_LOCK_KEY" >> history
: > marker || echo "two at once: $ETCD_LOCK_KEY" >> history
sum=$(cat sum)
echo $((sum + 1)) >| sum
rm marker
echo "leave $ETCD_LOCK_KEY" >> history
"""


class Turns:
    """
    Turns of both sides, each of which leaves its traces in files.

    :ivar ours: how many of them were ours.
    """

    def __init__(self, directory: Path) -> None:
        self.ours = 0
        self._directory = directory
        self._marker = directory / "marker"
        self._sum = directory / "sum"
        self._sum.write_text("0\n")
        self._write("")

    @property
    def history(self) -> list[tuple[str, str]]:
        """What came when: enter or leave, and whose key."""
        lines = (self._directory / "history").read_text().splitlines()
        return [(what, key) for what, _, key in (line.partition(" ") for line in lines)]

    @property
    def sum(self) -> int:
        return int(self._sum.read_text())

    def alternations(self, our_keys: set[str]) -> int:
        """How often the lock has passed from one side to the other."""
        sides = [key in our_keys for what, key in self.history if what == "enter"]
        return sum(one is not other for one, other in itertools.pairwise(sides))

    def _write(self, text: str) -> None:
        with (self._directory / "history").open("a") as file:
            file.write(text)

    async def take(self, client: EtcdClient, lock: Lock, counter: str) -> None:
        """One of ours."""
        key = lock.key.decode()
        self._write(f"enter {key}\n")
        self._marker.touch(exist_ok=False)
        before = self.sum
        found = await client.get(counter)
        count = int(found.kvs[0].value) + 1 if found.kvs else 1
        fenced = await client.txn([lock.is_owner], [op.put(counter, str(count))])
        assert fenced.succeeded
        self._sum.write_text(f"{before + 1}\n")
        self._marker.unlink()
        self.ours += 1
        self._write(f"leave {key}\n")


@ensureDeferred
async def test_etcdctl_lock_and_ours_alternate_200_times_and_never_hold_it_at_once(
    etcd_server: EmbeddedEtcd, make_client: MakeClient, prefix: str, run: Run, tmp_path: Path
) -> None:
    turns = Turns(tmp_path)
    (tmp_path / "turn.sh").write_text(THEIR_TURN)
    client = make_client()
    our_keys: set[str] = set()

    def enough() -> bool:
        return turns.alternations(our_keys) >= ALTERNATIONS

    async def ours() -> None:
        lock = Lock(make_client(), prefix + "lock")
        while not enough():
            await lock.acquire()
            our_keys.add(lock.key.decode())
            await turns.take(client, lock, prefix + "count")
            await lock.release()

    async def theirs() -> None:
        while not enough():
            program = etcdctl(run, etcd_server, "lock", prefix + "lock", "sh", "turn.sh")
            assert await program.ended() == 0, program.story("failed")
            program.check()

    contenders = [Deferred.fromCoroutine(each()) for each in (ours, ours, theirs, theirs, theirs, theirs)]
    await gatherResults(contenders)

    history = turns.history
    # Each one left before the next one came: the two lines of a turn stand together.
    assert {what for what, _ in history} == {"enter", "leave"}
    for (enter, key), (leave, same) in zip(history[::2], history[1::2], strict=True):
        assert (enter, leave, key) == ("enter", "leave", same)
    assert turns.sum == len(history) // 2
    assert (await client.get(prefix + "count")).kvs[0].value == str(turns.ours).encode()
    assert turns.alternations(our_keys) >= ALTERNATIONS
    # Each of theirs has a session of its own, and so do ours.
    assert len({key for _, key in history}) == turns.sum
    assert await line_of(client, prefix + "lock/") == []


@ensureDeferred
async def test_an_etcdctl_that_waits_is_let_in_by_ours_and_lets_ours_in(
    etcd_server: EmbeddedEtcd, client: EtcdClient, prefix: str, run: Run
) -> None:
    ours, next_one = Lock(client, prefix + "lock"), Lock(client, prefix + "lock")
    await ours.acquire()
    theirs = etcdctl(run, etcd_server, "lock", prefix + "lock")
    await until_line(client, prefix, lambda count: count == 2)
    waiting = next_one.acquire()
    await until_line(client, prefix, lambda count: count == 3)
    assert theirs.lines == []
    await ours.release()
    key = await theirs.line(prefix + "lock/")
    assert key.encode() == (await line_of(client, prefix))[0].key
    assert pending(waiting)
    theirs.send(signal.SIGTERM)
    await soon(waiting)
    await next_one.release()
    await theirs.ended()


@ensureDeferred
async def test_an_etcdctl_that_is_killed_is_followed_after_its_ttl(
    etcd_server: EmbeddedEtcd, client: EtcdClient, prefix: str, run: Run
) -> None:
    theirs = etcdctl(run, etcd_server, "lock", "--ttl=2", prefix + "lock")
    await theirs.line(prefix)
    [kv] = await line_of(client, prefix)
    waiting = Lock(client, prefix + "lock").acquire()
    await until_line(client, prefix, lambda count: count == 2)
    await theirs.kill()
    assert await soon(waiting) > kv.create_revision
    assert (await client.lease_time_to_live(kv.lease)).TTL == -1


HOLD = """
import sys
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted_etcd import EtcdClient, Lock

async def hold(reactor):
    async with EtcdClient(reactor, sys.argv[1]) as client:
        async with Lock(client, sys.argv[2], ttl=2):
            print("held")
            await Deferred()

react(lambda reactor: Deferred.fromCoroutine(hold(reactor)))
"""


@ensureDeferred
async def test_one_of_ours_that_is_killed_is_followed_after_its_ttl_by_both_sides(
    etcd_server: EmbeddedEtcd, client: EtcdClient, prefix: str, run: Run
) -> None:
    holder = run("-c", HOLD, etcd_server.endpoint, prefix + "lock")
    await holder.line("held")
    [kv] = await line_of(client, prefix)
    theirs = etcdctl(run, etcd_server, "lock", prefix + "lock", "echo", "theirs")
    await until_line(client, prefix, lambda count: count == 2)
    ours = Lock(client, prefix + "lock").acquire()
    await until_line(client, prefix, lambda count: count == 3)
    assert await holder.kill() == -signal.SIGKILL
    await theirs.line("theirs")
    assert (await client.lease_time_to_live(kv.lease)).TTL == -1
    await soon(ours)
    await theirs.end_well()


@ensureDeferred
async def test_etcdctl_elect_observes_ours(
    etcd_server: EmbeddedEtcd, client: EtcdClient, prefix: str, run: Run
) -> None:
    election = Election(client, prefix + "election")
    observer = etcdctl(run, etcd_server, "elect", "-l", prefix + "election")
    await election.campaign("ours")
    assert await observer.line(prefix) == election.key.decode()
    await observer.line("ours")
    await election.proclaim("ours, changed")
    await observer.line("ours, changed")
    await election.resign()
    await election.campaign("ours again")
    assert await observer.line(prefix) == election.key.decode()
    await observer.line("ours again")
    await election.resign()
    observer.send(signal.SIGINT)
    await observer.ended()


@ensureDeferred
async def test_etcdctl_elect_and_ours_follow_each_other_and_ours_observes_theirs(
    etcd_server: EmbeddedEtcd, client: EtcdClient, prefix: str, run: Run
) -> None:
    first, last = Election(client, prefix + "election"), Election(client, prefix + "election")
    async with Election(client, prefix + "election").observe() as leaders:
        await first.campaign("first")
        assert (await soon(leaders.next())).value == b"first"
        theirs = etcdctl(run, etcd_server, "elect", prefix + "election", "theirs")
        await until_line(client, prefix, lambda count: count == 2)
        winning = last.campaign("last")
        await until_line(client, prefix, lambda count: count == 3)
        await first.resign()
        leader = await soon(leaders.next())
        assert leader.value == b"theirs"
        assert await theirs.line(prefix) == leader.key.decode()
        assert pending(winning)
        theirs.send(signal.SIGTERM)
        await winning.addTimeout(PATIENCE, client.reactor)
        assert (await soon(leaders.next())).value == b"last"
    await last.resign()
    await theirs.ended()
