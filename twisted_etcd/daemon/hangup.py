"""SIGHUP, which Twisted leaves to its default: the end of the process."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReactorFromThreads

#: As ``signal.signal``: takes what is to be called, and gives what was called before.
Installer = Callable[[int, Any], Any]


class Hangup:
    """
    Calls a function in the reactor's turn for each SIGHUP, from :meth:`install` to :meth:`remove`.

    :param installer: sets what a signal does, ``signal.signal`` unless given.
    """

    def __init__(
        self, reactor: IReactorFromThreads, call: Callable[[], object], installer: Installer = signal.signal
    ) -> None:
        self._reactor = reactor
        self._call = call
        self._installer = installer
        self._before: Any = None
        self._installed = False

    def install(self) -> None:
        """Begin; only in the main thread, as Python has it."""
        self._before = self._installer(signal.SIGHUP, self._arrived)
        self._installed = True

    def remove(self) -> None:
        """Let SIGHUP do what it did before."""
        if self._installed:
            self._installed = False
            # None is what was set by no Python code, and cannot be set by any.
            self._installer(signal.SIGHUP, signal.SIG_DFL if self._before is None else self._before)

    def _arrived(self, _number: int, _frame: object) -> None:
        # It may have interrupted anything.
        self._reactor.callFromThread(self._call)
