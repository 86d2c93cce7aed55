"""The ways to choose an instance, by the names that an endpoint string has for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from twisted_etcd.registry.choice import Choice, RoundRobin

#: Makes a choice of that name.
CHOICES: Mapping[str, Callable[[], Choice]] = {"round-robin": RoundRobin}
