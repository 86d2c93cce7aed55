"""A very short run of the long test."""

from __future__ import annotations

from pathlib import Path

from pytest_twisted import ensureDeferred
from twisted.internet import reactor

from tests.etcds import ONE_VERSION
from tests.soak.soak import Settings, Soak


@ONE_VERSION
@ensureDeferred
async def test_a_short_run_keeps_every_promise_and_counts(etcd_binary: Path) -> None:
    said: list[str] = []
    kinds = ("kill the leader", "reset connections", "compact", "move the leader")
    settings = Settings(minutes=0.15, seed=1, binary=etcd_binary, kinds=kinds)
    soak = Soak(reactor, settings, said.append)
    report = await soak.run()
    assert soak.broken == []
    counted = report.as_json()
    assert counted["operations in order"] > 100
    assert counted["events in order"] > 100
    assert counted["acknowledged writes in the history"] > 20
    assert sum(counted["faults"].values()) >= 1
    assert any("operations" in line for line in report.lines())
