"""What a node and its services share: who is where, what is waited for, and how long."""

from __future__ import annotations

import math
from typing import NoReturn

from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from twisted_etcd.errors import ServiceNotFound, ServiceStopped, ServiceUnavailable
from twisted_etcd.messaging.addresses import ServiceHandle, Target
from twisted_etcd.messaging.reception import Reception
from twisted_etcd.messaging.sessions import SessionTable
from twisted_etcd.messaging.statistics import Statistics


def checked_timeout(seconds: float | None) -> float:
    """
    A timeout in seconds as the sessions want it: ``None`` becomes ``math.inf``.

    :raises ValueError: for zero, less, and NaN.
    :raises TypeError: for what is no number.
    """
    if seconds is None:
        return math.inf
    if not isinstance(seconds, int | float):
        msg = f"a timeout must be a number of seconds, not {type(seconds).__name__}"
        raise TypeError(msg)
    if not seconds > 0:
        msg = f"a timeout must be more than 0 seconds, not {seconds!r}; math.inf waits as long as it takes"
        raise ValueError(msg)
    return seconds


class Exchange:
    """
    The middle of a node.

    :ivar receptions: where messages are taken, by the names of services and by the handles of their runs.
    :ivar default_timeout: seconds for calls that name none.
    """

    def __init__(self, reactor: IReactorTime, default_timeout: float | None) -> None:
        self.reactor = reactor
        self.default_timeout = checked_timeout(default_timeout)
        self.statistics = Statistics()
        self.sessions = SessionTable(reactor, self.statistics)
        self.receptions: dict[Target, Reception] = {}

    def seconds(self, timeout: float | None) -> float:
        """How long a call waits that was given this timeout."""
        return self.default_timeout if timeout is None else checked_timeout(timeout)

    def not_found(self, target: Target) -> NoReturn:
        """
        Say why there is nothing at a target.

        :raises ServiceUnavailable: for the handle of a run that has ended.
        :raises ServiceNotFound: for a name that no service has, and for another node's handle.
        :raises TypeError: for anything else.
        """
        if isinstance(target, str):
            names = sorted(repr(name) for name in self.receptions if isinstance(name, str))
            msg = f"no service is named {target!r} in this node; it has {', '.join(names) or 'none'}"
            raise ServiceNotFound(msg)
        if not isinstance(target, ServiceHandle):
            msg = f"a message goes to a service's name, or its handle, not to {type(target).__name__}"
            raise TypeError(msg)
        if target.stopped:
            msg = f"that run of service {target.name!r} has ended; its name finds the present one"
            raise ServiceUnavailable(msg)
        msg = f"the handle of {target.name!r} belongs to another node, or its service has left this one"
        raise ServiceNotFound(msg)

    def give_up_sessions_of(self, owner: ServiceHandle | None, who: str) -> None:
        """Fail what a service, or with ``None`` the outside, still waits for."""
        for session in self.sessions.all():
            if session.owner is owner and session.waiting is not None:
                session.give_up(Failure(ServiceStopped(f"{who} stopped while it waited for {session.describe()}")))
