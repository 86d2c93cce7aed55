"""Which of several instances is called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from twisted_etcd.registry.instance import Instance


class Choice(Protocol):
    """A way to choose one of several instances."""

    def choose(self, instances: Sequence[Instance], key: str | bytes | None = None) -> Instance | None:
        """
        Choose one; None where there are none.

        :param instances: those that may be chosen, in the order of their keys. What was tried and failed is left out.
        :param key: what is to stay with one instance, for a choice that is sticky.
        """


class RoundRobin:
    """One after the other."""

    def __init__(self) -> None:
        self._turn = 0

    def choose(self, instances: Sequence[Instance], key: str | bytes | None = None) -> Instance | None:  # noqa: ARG002 - Choice's
        """See :class:`Choice`."""
        if not instances:
            return None
        chosen = instances[self._turn % len(instances)]
        self._turn += 1
        return chosen
