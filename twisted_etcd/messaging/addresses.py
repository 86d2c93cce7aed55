"""Where messages are sent to."""

from __future__ import annotations

from typing import TypeAlias

from twisted.internet.defer import Deferred

from twisted_etcd.moment import Moment


class ServiceHandle:
    """
    The address of one run of one service, from its start to its end.

    A name finds whatever service has it now; a handle finds that one run, and after its end nothing: messages to it
    fail with :exc:`~twisted_etcd.errors.ServiceUnavailable`, also when the service was started again.

    :ivar name: the name of the service.
    """

    __slots__ = ("__weakref__", "_stopped", "name")

    def __init__(self, name: str, stopped: Moment[None]) -> None:
        self.name = name
        self._stopped = stopped

    @property
    def stopped(self) -> bool:
        """Whether the service takes no more messages."""
        return self._stopped.happened

    def when_stopped(self) -> Deferred[None]:
        """
        Fires once the service takes no more messages: as it begins to stop, or when it refuses to start.

        Each caller gets a Deferred of its own. Cancel it to wait no longer.
        """
        return self._stopped.wait()

    def __repr__(self) -> str:
        return f"<ServiceHandle of {self.name!r}{' (stopped)' if self.stopped else ''}>"


#: Where a message goes: to the service of that name, or to that run of a service.
Target: TypeAlias = str | ServiceHandle
