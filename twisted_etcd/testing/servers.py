"""One real etcd for tests."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from treq.client import HTTPClient
from twisted.web.client import Agent, HTTPConnectionPool

from twisted_etcd.embedded.binary import find_binary
from twisted_etcd.embedded.process import EmbeddedEtcd
from twisted_etcd.testing.member import ILabReactor

#: For an etcd on its own: by default it waits for up to two seconds before it leads itself.
QUICK_ELECTIONS = ("--heartbeat-interval=20", "--election-timeout=200")


def new_server(
    reactor: ILabReactor,
    *,
    binary: str | os.PathLike[str] | None = None,
    extra_args: Sequence[str] = (),
    **options: Any,  # noqa: ANN401 - as EmbeddedEtcd has them
) -> EmbeddedEtcd:
    """
    An etcd on loopback, not started yet, that leads itself within a moment and leaves no connections behind.

    :param binary: the program, see :func:`~twisted_etcd.embedded.binary.find_binary`.
    :param extra_args: further arguments of it.
    :param options: as :class:`~twisted_etcd.embedded.process.EmbeddedEtcd` takes them.
    """
    return EmbeddedEtcd(
        reactor,
        HTTPClient(Agent(reactor, pool=HTTPConnectionPool(reactor, persistent=False))),
        binary=find_binary(binary),
        extra_args=(*QUICK_ELECTIONS, *extra_args),
        **options,
    )
