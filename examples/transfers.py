"""
A bank in a part of etcd's keys: transfers as transactions, a view in which no money is ever missing, and a copy.

Run it with an etcd at hand, at http://127.0.0.1:2379 unless you name another::

    python transfers.py [ENDPOINTS]

``ENDPOINTS`` is a URL, or several with commas between them; the environment variable ``ETCD_ENDPOINTS`` does as well.
"""

from __future__ import annotations

import os
import sys

from twisted.internet import task
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime

from twisted_etcd import (
    CachedView,
    Committed,
    Counter,
    EtcdClient,
    Mirror,
    Namespace,
    RequestFailed,
    Transaction,
    ViewSnapshot,
    stm,
)

PLACE = "examples/transfers/"
OPENED_WITH = 100
NAMES = ("anna", "bert", "chris")


class Bank:
    """Accounts, of which nothing here knows that other programs have keys beside them."""

    def __init__(self, client: EtcdClient) -> None:
        self._accounts = Namespace(client, "accounts/")
        self._transfers = Counter(client, "transfers")

    async def open(self) -> None:
        """Give everybody the same."""
        for name in NAMES:
            await self._accounts.put(name, str(OPENED_WITH))

    async def transfer(self, giver: str, taker: str, amount: int) -> int:
        """
        Move money, however many others do at the same time.

        :return: how often it was tried.
        :raises ValueError: the giver has less; nothing was moved.
        """

        async def move(transaction: Transaction) -> None:
            # It runs again where somebody came between, so it does nothing but this.
            has = int(await transaction.get(giver) or 0)
            if has < amount:
                text = f"{giver} has {has} and cannot give {amount}"
                raise ValueError(text)
            transaction.put(giver, str(has - amount))
            transaction.put(taker, str(int(await transaction.get(taker) or 0) + amount))

        moved: Committed[None] = await stm(self._accounts, move)
        await self._transfers.add()
        return moved.attempts

    async def transfers(self) -> int:
        """How many there were."""
        return await self._transfers.value()


def balances(snapshot: ViewSnapshot) -> str:
    """Each account of a snapshot, in its order."""
    return ", ".join(f"{kv.key.decode().rpartition('/')[2]} {kv.value.decode()}" for kv in snapshot.values())


async def show(place: EtcdClient) -> None:
    """Open the bank, let all give at once, and look."""
    bank = Bank(place)
    await bank.open()
    view = CachedView(place, "accounts/")
    sums: set[int] = set()
    view.on_change(lambda _: sums.add(sum(int(kv.value) for kv in view.snapshot().values())))
    copy = Mirror(place, place, "accounts/", dest_prefix="copy/")
    view.startService()
    copy.startService()
    try:
        await view.when_loaded()
        print("opened:", balances(view.snapshot()))
        giving = [bank.transfer(NAMES[number % 3], NAMES[(number + 1) % 3], 1 + number % 4) for number in range(30)]
        attempts = await gatherResults([Deferred.fromCoroutine(each) for each in giving])
        print(
            f"{await bank.transfers()} transfers, all at once, of which some ran again: {sum(attempts) > len(attempts)}"
        )
        seen = (await place.get("accounts/", prefix=True)).header.revision
        await view.at_least(seen)
        print("closed:", balances(view.snapshot()))
        print("whenever somebody looked, there was in all:", *sorted(sums))
        try:
            await bank.transfer("anna", "bert", 1000)
        except ValueError as error:
            print("refused:", error)
        await copy.at_least(max(kv.mod_revision for kv in view.snapshot().values()))
        copied = await place.get("copy/", prefix=True)
        same = [kv.value for kv in copied.kvs] == [kv.value for kv in view.snapshot().values()]
        print("the copy is the same:", same)
    finally:
        await gatherResults([view.stopService(), copy.stopService()])


async def main(reactor: IReactorTime, endpoints: str) -> None:
    """All of it; nothing is left behind."""
    async with EtcdClient(reactor, endpoints) as client:
        place = Namespace(client, PLACE)
        try:
            await place.delete("", prefix=True)
            await show(place)
            await place.delete("", prefix=True)
        except RequestFailed as error:
            sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    default = os.environ.get("ETCD_ENDPOINTS", "http://127.0.0.1:2379")
    task.react(
        lambda reactor, endpoints: Deferred.fromCoroutine(main(reactor, endpoints)),
        [sys.argv[1] if len(sys.argv) > 1 else default],
    )
