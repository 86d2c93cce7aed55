"""How the tests of this room get their clients and configurations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, cast

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import gatherResults

from tests.client.conftest import client, make_client, proxy, proxy_before
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.config.config import Config

__all__ = ["client", "make_client", "proxy", "proxy_before"]


class MakeConfig(Protocol):
    """Makes and starts a configuration below ``prefix``; it is stopped at the end of the test."""

    def __call__(self, client: EtcdClient, **options: Any) -> Config: ...  # noqa: ANN401


@pytest.fixture
def make_config(prefix: str) -> Iterator[MakeConfig]:
    """See :class:`MakeConfig`."""
    made: list[Config] = []

    def make(client: EtcdClient, **options: Any) -> Config:  # noqa: ANN401
        config = Config(client, cast("Any", reactor), prefix, **options)
        config.startService()
        made.append(config)
        return config

    yield make
    pytest_twisted.blockon(gatherResults([config.stopService() for config in made]))
