"""What every client must do, a namespace does as well: the contract tests once more, through one and through two."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.client import (
    test_contract_kv,
    test_contract_lease,
    test_contract_scan,
    test_contract_txn,
    test_contract_watch,
)
from tests.client.conftest import MakeClient
from tests.client.test_contract_watch import watcher
from tests.etcds import binaries
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.client.namespace import Namespace

__all__ = ["watcher"]

#: What a namespace does is the same whoever serves it.
SERVERS = binaries()[:1]
#: They stop their client; a namespace does not end what it is a view of.
OF_A_CLIENTS_END = frozenset(
    {
        "test_a_client_that_stops_ends_its_watches",
        "test_a_client_that_stops_leaves_its_leases_where_it_was_told_so",
        "test_a_client_that_stops_revokes_its_leases",
        "test_a_thousand_watches_share_one_connection",
        "test_a_watch_after_the_stop_ends_at_once",
    }
)
CONTRACTS = (test_contract_kv, test_contract_lease, test_contract_scan, test_contract_txn, test_contract_watch)


def _tests() -> Iterator[tuple[str, Any]]:
    for module in CONTRACTS:
        for name, test in vars(module).items():
            if name.startswith("test_") and callable(test) and name not in OF_A_CLIENTS_END:
                yield name, test


@pytest.fixture(params=["one", "two"])
def make_client(request: pytest.FixtureRequest, make_client: MakeClient, prefix: str) -> MakeClient:
    """Makes namespaces, of clients of the server under test."""

    def make(**options: Any) -> EtcdClient:  # noqa: ANN401
        namespace = Namespace(make_client(**options), f"in{prefix}")
        return Namespace(namespace, b"and\xff") if request.param == "two" else namespace

    return make


globals().update(_tests())


def test_what_is_left_out_is_there() -> None:
    assert {name for module in CONTRACTS for name in vars(module)} >= OF_A_CLIENTS_END
