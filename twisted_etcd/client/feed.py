"""Between a watch and its carrier: asks for the right revision, and takes the watch off and on again."""

from __future__ import annotations

import enum

from msgspec.structs import replace
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from twisted_etcd.client.carriers import Carrier, Carriers
from twisted_etcd.client.position import Created, Delivered, Interrupted, Over, WatchPosition
from twisted_etcd.client.watch import Watch
from twisted_etcd.schema.watch import WatchCreateRequest, WatchResponse


class FeedState(enum.Enum):
    """``CARRIED`` ⇄ ``PAUSED``, and from both to ``OVER``."""

    CARRIED = "on a stream"
    PAUSED = "off its stream until the backlog is consumed"
    OVER = "nothing more will come"


class WatchFeed:
    """
    Feeds one watch.

    :param request: what is asked of etcd, but for the revision and the id.
    """

    def __init__(self, carriers: Carriers, request: WatchCreateRequest, watch: Watch) -> None:
        self.confirmed = False
        self._carriers = carriers
        self._request = request
        self._watch = watch
        self._position = WatchPosition(request.start_revision)
        self._carrier: Carrier | None = None
        self._state = FeedState.CARRIED
        carriers.carry(self)

    # --- for the watch ----------------------------------------------------------------------------------------------

    def pause(self) -> None:
        """See :meth:`twisted_etcd.client.watch.Feed.pause`."""
        if self._state is FeedState.CARRIED:
            self._state = FeedState.PAUSED
            self._carriers.until(self._leave())

    def resume(self) -> None:
        """See :meth:`twisted_etcd.client.watch.Feed.resume`."""
        if self._state is FeedState.PAUSED:
            self._state = FeedState.CARRIED
            self._position.broke()
            self._carriers.carry(self)

    def stop(self) -> Deferred[None]:
        """See :meth:`twisted_etcd.client.watch.Feed.stop`."""
        self._state = FeedState.OVER
        return self._leave()

    def _leave(self) -> Deferred[None]:
        carrier, self._carrier = self._carrier, None
        return carrier.remove(self) if carrier is not None else succeed(None)

    # --- for the carrier --------------------------------------------------------------------------------------------

    def request(self, watch_id: int) -> WatchCreateRequest:
        """See :meth:`twisted_etcd.client.carriers.Fed.request`."""
        return replace(self._request, watch_id=watch_id, start_revision=self._position.next_revision)

    def carried_by(self, carrier: Carrier) -> None:
        """See :meth:`twisted_etcd.client.carriers.Fed.carried_by`."""
        self._carrier = carrier

    def received(self, response: WatchResponse) -> Interrupted | Over | None:
        """See :meth:`twisted_etcd.client.carriers.Fed.received`."""
        step = self._position.received(response)
        if isinstance(step, Created):
            self.confirmed = True
            self._watch.confirmed(step.revision)
        elif isinstance(step, Delivered):
            self._watch.deliver(step.batch)
        else:
            return step
        return None

    def broke(self) -> None:
        """See :meth:`twisted_etcd.client.carriers.Fed.broke`."""
        self._position.broke()

    def over(self, error: Exception) -> None:
        """See :meth:`twisted_etcd.client.carriers.Fed.over`."""
        self._state = FeedState.OVER
        self._carrier = None
        self._watch.finished(Failure(error))
