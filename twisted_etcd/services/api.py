"""The calls to ``EtcdService`` as plain methods."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from typing import cast

from twisted.internet.defer import Deferred, DeferredLock, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_etcd.errors import Conflict, ServiceUnavailable
from twisted_etcd.messaging.addresses import ServiceHandle
from twisted_etcd.messaging.lifecycle import State
from twisted_etcd.messaging.node import Node
from twisted_etcd.messaging.routes import handles
from twisted_etcd.messaging.service import MessageService
from twisted_etcd.moment import Moment
from twisted_etcd.registry.instance import Instance
from twisted_etcd.services import messages as m

#: Told each change of a configuration value; may return a Deferred or be ``async def``.
ConfigCallback = Callable[[m.EtcdConfigChangedMsg], object]


class ConfigWatch(MessageService):
    """
    A followed configuration value, as a small service of the node that calls back.

    :param callback: told each change, one after the other: while it waits, the next change waits too.
    :param owner: whose watch it is: it ends with that service; None for one that nobody else ends.
    :param of_path: whether it is of all that is below a path.
    :ivar value: what it was when the watch began, and then what the last change made it; None where it is not set, and
        for a path.
    :ivar values: for a path, what is below it, by keys, likewise.
    """

    _log = Logger()

    def __init__(
        self, name: str, callback: ConfigCallback, owner: ServiceHandle | None = None, *, of_path: bool = False
    ) -> None:
        super().__init__(name)
        self._is_of_path = of_path
        self.value: bytes | None = None
        self.values: dict[str, bytes] = {}
        self._callback = callback
        self._owner = owner
        self._owner_stopped: Deferred[None] | None = None
        self._turns = DeferredLock()
        self._leaving = False
        self._ended: Moment[None] = Moment()

    @property
    def ended(self) -> Deferred[None]:
        """A new Deferred that fires with None after :meth:`stop`, and fails with anything else that ended it."""
        return self._ended.wait()

    def on_start(self) -> None:
        """Begin to end with the owner."""
        if self._owner is not None:
            self._owner_stopped = self._owner.when_stopped()
            # It fails where it is cancelled below.
            self._owner_stopped.addCallbacks(self._owner_has_stopped, lambda _: None)

    def _owner_has_stopped(self, _: None) -> None:
        # Not waited for, since the end cancels what waits for the owner.
        self.stop()

    def on_exit(self) -> None:
        """Say that it is over."""
        if self._owner_stopped is not None:
            self._owner_stopped.cancel()
        self._ended.fire(None)

    @handles(m.EtcdConfigChangedMsg)
    def on_changed(self, message: m.EtcdConfigChangedMsg) -> Deferred[None]:
        """Hand a change on; what the callback raises is logged by the node."""
        if self._is_of_path:
            self.values.pop(message.key, None)
            if message.new_value is not None:
                self.values[message.key] = message.new_value
        else:
            self.value = message.new_value
        return self._turns.run(self._callback, message).addCallback(lambda _: None)

    @handles(m.EtcdWatchEndedMsg)
    def on_ended(self, message: m.EtcdWatchEndedMsg) -> None:
        """Say that nothing more will come."""
        self._log.error("{service} has ended: {why}", service=self.name, why=str(message.error))
        self._ended.fail(Failure(message.error))
        self.stop()

    def stop(self) -> Deferred[None]:
        """Follow the value no longer. Fires when nothing of it is left; a callback that waits is cancelled."""
        if self._leaving or self.parent is None:
            return self.stopService()
        self._leaving = True
        return maybeDeferred(self.disownServiceParent).addCallback(lambda _: None)


class EtcdApi:
    """
    Calls ``EtcdService`` on behalf of a service, or of a node for code outside it.

    Each method fails as the message does that it stands for.

    :param caller: whose calls they are: they end with it.
    :param target: the name of the ``EtcdService``.
    :raises TypeError: for another caller.
    """

    def __init__(self, caller: MessageService | Node, target: str = m.ETCD_SERVICE) -> None:
        if not isinstance(caller, MessageService | Node):
            msg = f"EtcdApi calls on behalf of a Node or a MessageService, not of {type(caller).__name__}"
            raise TypeError(msg)
        self._caller = caller
        self._target = target

    def get(self, key: str | bytes) -> Deferred[bytes | None]:
        """The value of a key; None where it is not there."""
        return self._caller.call(self._target, m.EtcdGetReq(key)).addCallback(lambda answer: answer.value)

    def set(self, key: str | bytes, value: str | bytes, lease_id: int = 0) -> Deferred[int]:
        """Put a key; fires with etcd's revision of the change."""
        request = m.EtcdSetReq(key, value, lease_id)
        return self._caller.call(self._target, request).addCallback(lambda answer: answer.revision)

    def delete(self, key: str | bytes) -> Deferred[bool]:
        """Delete a key; fires with whether it was there."""
        return self._caller.call(self._target, m.EtcdDelReq(key)).addCallback(lambda answer: answer.success)

    def get_all(self, prefix: str | bytes) -> Deferred[dict[bytes, bytes]]:
        """All values whose keys begin with a prefix, by their keys."""
        return self._caller.call(self._target, m.EtcdGetAllReq(prefix)).addCallback(lambda answer: answer.kvs)

    def load_config(self, key: str) -> Deferred[bytes | None]:
        """A configuration value; None where it is not set."""
        request = m.EtcdConfigLoadReq(key)
        return self._caller.call(self._target, request).addCallback(lambda answer: answer.config_value)

    def set_config(self, key: str, value: str | bytes, *, if_revision: int | None = None) -> Deferred[int]:
        """
        Set a configuration value; fires with etcd's revision of the change.

        :param if_revision: only where its last change has this revision; 0: where it is not set.
        :raises Conflict: it was not set, because of that.
        """

        def revision(answer: m.EtcdConfigSetResp) -> int:
            if answer.success or if_revision is None:
                return answer.revision
            raise Conflict(key.strip("/"), if_revision, answer.revision)

        return self._caller.call(self._target, m.EtcdConfigSetReq(key, value, if_revision)).addCallback(revision)

    def config_history(self, key: str, *, limit: int = 0) -> Deferred[m.EtcdConfigHistoryResp]:
        """
        What happened to a configuration value, the newest first, back to where etcd's history has been compacted.

        :param limit: how many changes at the most; 0 for all.
        """
        return self._caller.call(self._target, m.EtcdConfigHistoryReq(key, limit))

    def watch_config(
        self,
        key: str,
        callback: ConfigCallback,
        *,
        patient: bool = False,
        prefix: bool = False,
        quiet_min: float = 0.0,
        quiet_max: float | None = None,
    ) -> Deferred[ConfigWatch]:
        """
        Follow a configuration value.

        :param callback: told each change, with the old and the new value.
        :param patient: while etcd is away, wait for it, however long that takes; without it, the Deferred fails.
        :param prefix: follow all that is below the path ``key``, which may be empty.
        :param quiet_min: seconds without a further change after which changes are told, several of one key as one; 0 to
            tell each at once.
        :param quiet_max: seconds after the first change after which they are told in any case; four times as long where
            it is None.
        :return: fires when it is followed: ``watch.value`` is what it is, now and after each change, and for a path
            ``watch.values`` what is below it, by keys; ``watch.stop()`` ends it, and ``watch.ended`` tells when that,
            or anything else, has happened.
        :raises ServiceUnavailable: the caller is not running.
        :raises TypeError: for a callback that cannot be called.
        """
        if not callable(callback):
            msg = f"callback must be a function that takes an EtcdConfigChangedMsg, not {type(callback).__name__}"
            raise TypeError(msg)
        request = m.EtcdConfigWatchReq(key, patient=patient, prefix=prefix, quiet_min=quiet_min, quiet_max=quiet_max)
        return Deferred.fromCoroutine(self._watch_config(request, callback))

    async def _watch_config(self, request: m.EtcdConfigWatchReq, callback: ConfigCallback) -> ConfigWatch:
        key, caller = request.config_key, self._caller
        if caller.node_exchange is None:
            msg = f"{caller!r} is not running, so it can follow nothing: start it first"
            raise ServiceUnavailable(msg)
        node = caller if isinstance(caller, Node) else cast("Node", caller.parent)
        names = (f"watch-{number}-of-config-{key}" for number in itertools.count(1))
        name = next(name for name in names if name not in node.namedServices)
        watch = ConfigWatch(name, callback, caller.own_handle, of_path=request.prefix)
        watch.setServiceParent(node)
        try:
            if watch.state is State.CREATED:
                # The node is starting, and its turn comes after the service that waits for it here, in on_start.
                watch.startService()
            await watch.when_started()
            answer = await watch.call(self._target, request, math.inf if request.patient else None)
        except Exception:
            await watch.stop()
            raise
        watch.value, watch.values = answer.config_value, answer.config_values
        return watch

    def register_service(
        self,
        service_name: str,
        service_address: str,
        ttl: int = 10,
        tags: tuple[str, ...] = (),
        metadata: Mapping[str, str] | None = None,
        *,
        patient: bool = False,
        drain: float = 0.0,
        weight: int = 1,
        id: str = "",  # noqa: A002 - as the instance has it
        format: str = "json",  # noqa: A002 - as the message has it
        own_lease: bool = False,
    ) -> Deferred[int]:
        """
        Register an instance of a service; fires with the id of its lease.

        :param ttl: seconds that it stays when nothing is heard of this process any more.
        :param patient: while etcd is away, wait for it, however long that takes; without it, the Deferred fails.
        :param drain: seconds between the removal of its key and the end of :meth:`unregister_service`, or of a stop.
        :param weight: its share of the calls, against the other instances' weights.
        :param id: what tells it from the others; the address unless given.
        :param format: how it is written in etcd: ``json``, ``go``, or ``address``.
        :param own_lease: with a lease of its own, and not the one that all with its TTL share.
        """
        request = m.EtcdServiceRegisterReq(
            service_name=service_name,
            service_address=service_address,
            ttl=ttl,
            tags=tags,
            metadata=dict(metadata or {}),
            patient=patient,
            drain=drain,
            weight=weight,
            id=id,
            format=format,
            own_lease=own_lease,
        )
        calling = self._caller.call(self._target, request, math.inf if patient else None)
        return calling.addCallback(lambda answer: answer.lease_id)

    def unregister_service(
        self, service_name: str, service_address: str, drain: float | None = None, *, timeout: float | None = None
    ) -> Deferred[bool]:
        """
        Take a registration back; fires with whether there was one.

        :param drain: seconds to wait when its key is gone; what it was registered with where it is None.
        :param timeout: seconds for the call, more than the drain: the node's default where it is None.
        """
        request = m.EtcdServiceUnregisterReq(service_name, service_address, drain)
        return self._caller.call(self._target, request, timeout).addCallback(lambda answer: answer.success)

    def discover_service(
        self,
        service_name: str,
        *,
        tags: tuple[str, ...] = (),
        metadata: Mapping[str, str] | None = None,
        fresh: bool = True,
    ) -> Deferred[tuple[Instance, ...]]:
        """
        The instances of a service that are registered now, but for the critical ones.

        :param tags: those that have all of them.
        :param metadata: those that have all of it.
        :param fresh: ask etcd; without it, by the view of the service in this process, at once.
        """
        request = m.EtcdServiceDiscoverReq(service_name, tags, dict(metadata or {}), fresh=fresh)
        return self._caller.call(self._target, request).addCallback(lambda answer: answer.instances)
