"""What both are, whatever is asked of them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from hypothesis.stateful import RuleBasedStateMachine

from tests.differential.pair import Pair, Watching, emptied, memory_like
from twisted_etcd.errors import EtcdError
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.common import Message

#: Runs a coroutine to its end, in the reactor.
Run = Callable[[Coroutine[Any, Any, Any]], Any]
#: Watches of one run on a POST stream of their own.
MOST_STREAMS = 4


class Both(RuleBasedStateMachine):
    """
    Both etcds, with the same in them.

    :cvar steps: how many were done, in all runs.
    """

    steps = 0
    run: Run
    endpoint: str

    def __init__(self) -> None:
        super().__init__()
        self._pair, self._shared = self.run(self._begin())
        self._streams: list[Watching] = []
        self._now = self._first

    async def _begin(self) -> tuple[Pair, Watching]:
        self._first = await emptied(self.endpoint)
        self._memory = await memory_like(self.endpoint, self._first)
        pair = Pair(self.endpoint, self._memory)
        await pair.forget()
        # A key that came and went.
        self._first += 2
        return pair, await pair.websocket()

    def teardown(self) -> None:
        self.run(self._end())

    async def _end(self) -> None:
        try:
            await self._compare()
        finally:
            for each in (self._shared, *self._streams):
                await each.close()
            await self._pair.stop()

    async def _compare(self) -> None:
        for each in (self._shared, *self._streams):
            await each.compare()

    def _did(self, *answers: object) -> None:
        type(self).steps += 1
        for answer in answers:
            header = getattr(answer, "header", None)
            if header is not None:
                self._now = max(self._now, header.revision)

    def _ask(self, rpc: rpcs.RPC[Any, Any], request: Message) -> Message | EtcdError:
        answer: Message | EtcdError = self.run(self._pair.ask(rpc, request))
        self._did(answer)
        return answer
