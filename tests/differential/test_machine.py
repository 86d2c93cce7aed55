"""The etcd in memory answers as a real one does, whatever is asked: some steps of what the command does at length."""

from __future__ import annotations

from pytest_twisted import ensureDeferred
from twisted.internet import threads

from tests.client.users import CHEAP
from tests.differential.__main__ import run
from tests.differential.machine import compare
from tests.etcds import ONE_VERSION, FreshEtcd

#: 10,000 take a minute: ``python -m tests.differential``.
STEPS = 500


@ONE_VERSION
@ensureDeferred
async def test_both_answer_the_same(fresh_etcd: FreshEtcd) -> None:
    server = await fresh_etcd(extra_args=(CHEAP,))
    assert await threads.deferToThread(compare, run, server.endpoint, STEPS, seed=6) >= STEPS
