"""Between a watch and its carrier: does what the watch's machine says."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_etcd.client.carriers import Carrier, Carriers
from twisted_etcd.client.machine import (
    Actions,
    Carry,
    Confirm,
    Deliver,
    Doubt,
    Finish,
    Leave,
    Read,
    Refused,
    Reopen,
    WatchMachine,
)
from twisted_etcd.client.position import Interrupted, Over
from twisted_etcd.client.rangereader import RangeReader
from twisted_etcd.client.watch import Watch
from twisted_etcd.errors import EtcdError, NotEtcd, ServiceStopped, TLSFailed
from twisted_etcd.schema.watch import WatchCreateRequest, WatchResponse


class WatchFeed:
    """
    Feeds one watch.

    :param request: what its user asked for.
    :param resync: whether its keys are read again where etcd has compacted what comes next.
    """

    __slots__ = ("_asking", "_carrier", "_carriers", "_machine", "_reader", "_watch")

    _log = Logger()

    def __init__(
        self,
        carriers: Carriers,
        reader: RangeReader,
        request: WatchCreateRequest,
        watch: Watch,
        *,
        resync: bool = False,
    ) -> None:
        self._carriers = carriers
        self._reader = reader
        self._watch = watch
        self._machine = WatchMachine(request, resync=resync)
        self._carrier: Carrier | None = None
        #: What is being asked of etcd beside the stream.
        self._asking: Deferred[Actions] | None = None

    # --- for the watch ----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Ask etcd, now that the watch knows where its batches come from."""
        self._do(self._machine.begin())

    def pause(self) -> None:
        """See :meth:`twisted_etcd.client.watch.Feed.pause`."""
        self._do(self._machine.fell_behind())

    def resume(self) -> None:
        """See :meth:`twisted_etcd.client.watch.Feed.resume`."""
        self._do(self._machine.caught_up())

    def stop(self) -> Deferred[None]:
        """See :meth:`twisted_etcd.client.watch.Feed.stop`."""
        self._machine.stopped()
        leaving = self._leave()
        # Whoever does not wait for it may stop the client next, which does.
        self._carriers.until(leaving)
        return leaving

    # --- for the carrier --------------------------------------------------------------------------------------------

    @property
    def confirmed(self) -> bool:
        """See :attr:`twisted_etcd.client.carriers.Fed.confirmed`."""
        return self._machine.confirmed

    def request(self, watch_id: int) -> WatchCreateRequest:
        """See :meth:`twisted_etcd.client.carriers.Fed.request`."""
        return self._machine.request(watch_id)

    def carried_by(self, carrier: Carrier) -> None:
        """See :meth:`twisted_etcd.client.carriers.Fed.carried_by`."""
        self._carrier = carrier

    def received(self, response: WatchResponse) -> Interrupted | Over | None:
        """See :meth:`twisted_etcd.client.carriers.Fed.received`."""
        return self._do(self._machine.received(response))

    def broke(self) -> None:
        """See :meth:`twisted_etcd.client.carriers.Fed.broke`."""
        self._machine.broke()
        self._watch.broke()

    def over(self, error: Exception) -> None:
        """See :meth:`twisted_etcd.client.carriers.Fed.over`."""
        self._carrier = None
        self._do(self._machine.failed(error))

    # --- what the machine says --------------------------------------------------------------------------------------

    def _do(self, actions: Actions) -> Interrupted | Over | None:
        """Do it; what is given back is for the carrier to do."""
        for action in actions:
            if isinstance(action, Deliver):
                self._watch.deliver(action.batch)
            elif isinstance(action, Confirm):
                self._watch.confirmed(action.revision)
            elif isinstance(action, Reopen):
                return Interrupted(action.error)
            elif isinstance(action, Refused):
                return Over(action.error)
            else:
                self._do_alone(action)
        return None

    def _do_alone(self, action: Carry | Leave | Read | Doubt | Finish) -> None:
        if isinstance(action, Carry):
            self._carriers.carry(self)
        elif isinstance(action, Leave):
            self._carriers.until(self._leave())
        elif isinstance(action, Finish):
            self._ask_no_more()
            self._watch.finished(Failure(action.error))
        else:
            if isinstance(action, Read) and self._machine.confirmed:
                # Until its keys are read again, nothing is heard of them.
                self._watch.broke()
            self._ask(action)

    def _leave(self) -> Deferred[None]:
        self._ask_no_more()
        carrier, self._carrier = self._carrier, None
        return carrier.remove(self) if carrier is not None else succeed(None)

    def _ask(self, action: Read | Doubt) -> None:
        self._ask_no_more()
        asking = self._asking = Deferred.fromCoroutine(
            self._read(action) if isinstance(action, Read) else self._doubt(action)
        )
        asking.addCallbacks(self._answered, self._unanswered, callbackArgs=(asking,), errbackArgs=(asking,))

    def _ask_no_more(self) -> None:
        if self._asking is not None:
            self._asking.cancel()

    async def _read(self, action: Read) -> Actions:
        try:
            reading = await self._reader.whole(
                *self._machine.keys, action.revision, keys_only=action.keys_only, worked=self._machine.confirmed
            )
        except (EtcdError, NotEtcd, TLSFailed) as error:
            return self._machine.unreadable(error)
        return self._machine.read(reading.found, reading.revision, reading.cluster_id)

    async def _doubt(self, action: Doubt) -> Actions:
        try:
            present = await self._reader.present(self._machine.keys[0])
        except EtcdError as error:
            # The watch goes on meanwhile, and asks again where there is reason to.
            self._log.warn("{watch!r} cannot ask how far the cluster is: {why}", watch=self._watch, why=str(error))
            return ()
        return self._machine.cluster_is_at(present.cluster_id, present.revision, doubted=action.told)

    def _answered(self, actions: Actions, asking: Deferred[Actions]) -> None:
        self._forget(asking)
        self._do(actions)

    def _unanswered(self, failure: Failure, asking: Deferred[Actions]) -> None:
        self._forget(asking)
        if not failure.check(CancelledError, ServiceStopped):
            self._log.failure("What {watch!r} asked of etcd failed.", failure, watch=self._watch)

    def _forget(self, asking: Deferred[Actions]) -> None:
        if self._asking is asking:
            self._asking = None
