"""The ways to choose an instance, by the names that an endpoint string has for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from twisted_etcd.registry.choice import Choice, RoundRobin
from twisted_etcd.registry.instance import Instance

#: Makes a choice of that name.
CHOICES: Mapping[str, Callable[[], Choice]] = {"round-robin": RoundRobin}


def begin_use(choice: Choice, instance: Instance) -> Callable[[], None]:
    """
    Tell a choice that counts uses, by a method ``begin``, that one of this instance begins.

    :return: ends it.
    """
    begin = getattr(choice, "begin", None)
    end: Callable[[], None] = (lambda: None) if begin is None else begin(instance).end
    return end
