"""The exit status of a ``twistd`` whose service could not do its work."""

from __future__ import annotations

import logging
import os
import sys

from twisted.internet.error import ReactorNotRunning
from twisted.internet.interfaces import IReactorCore
from twisted.logger import Logger

_log = Logger()


class ExitStatus:
    """
    Lets the process end, with the status 0 or 1.

    ``twistd`` ends with 0 where no signal stopped it, and offers nothing to say otherwise: its reactor catches a
    ``SystemExit``, and so does what runs the reactor. What can still set the status is a function for ``atexit``.
    """

    def __init__(self, reactor: IReactorCore) -> None:
        self._reactor = reactor
        self._failed = False

    def succeed(self) -> None:
        """Stop the reactor, were it not even running yet: all is done."""
        self._reactor.callWhenRunning(self._stop)

    def fail(self) -> None:
        """Stop the reactor, were it not even running yet; :meth:`leave` will end the process as a failure."""
        if not self._failed:
            self._failed = True
            self._reactor.callWhenRunning(self._stop)

    def _stop(self) -> None:
        try:
            self._reactor.stop()
        except ReactorNotRunning:
            _log.debug("a signal came first, and the reactor stops already")

    def leave(self) -> None:
        """The last of the functions for ``atexit``: those that were registered before it are not called any more."""
        if self._failed:
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(1)
