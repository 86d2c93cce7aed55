"""The etcd in memory answers as a real one does, whatever is asked: some steps of what the command does at length."""

from __future__ import annotations

import pytest_twisted
from twisted.internet.defer import Deferred

from tests.client.users import CHEAP
from tests.differential.machine import compare
from tests.etcds import ONE_VERSION, FreshEtcd

#: 10,000 take a minute: ``python -m tests.differential``.
STEPS = 500


@ONE_VERSION
def test_both_answer_the_same(fresh_etcd: FreshEtcd) -> None:
    server = pytest_twisted.blockon(fresh_etcd(extra_args=(CHEAP,)))
    done = compare(lambda work: pytest_twisted.blockon(Deferred.fromCoroutine(work)), server.endpoint, STEPS, seed=6)
    assert done >= STEPS
