"""One registration, which holds from when it is asked for until it is taken back."""

from __future__ import annotations

import enum
from collections.abc import Callable
from contextlib import suppress

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_etcd.backoff import Backoff
from twisted_etcd.client import compare, op
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.client.lease import Lease
from twisted_etcd.errors import EtcdError, LeaseNotFound, RequestFailed, ServiceStopped
from twisted_etcd.moment import Moment
from twisted_etcd.registry.instance import Instance, InstanceFormat, encode_instance
from twisted_etcd.schema.kv import KeyValue

#: Seconds: the longest wait before a lost registration is tried again.
_LONGEST_BACKOFF = 10.0


class RegistrationState(str, enum.Enum):
    """``WANTED`` → ``ALIVE`` ⇄ ``LOST``, and from each of them to ``ENDED``."""

    WANTED = "wanted"
    ALIVE = "alive"
    LOST = "lost"
    ENDED = "ended"


class Registration:
    """
    Keeps a key in etcd for an instance of a service, by a lease of its own.

    Where the lease is lost, or the key is found to be gone or another's, it is registered again, with a new lease and
    growing waits, for ever.

    :param path: the key.
    :param ttl: seconds that the key stays when nothing is heard of this process any more.
    :param form: how the instance is written.
    :param patient: go on trying where the first attempt fails; without it :meth:`start` fails with its error.
    :param changed: called with this registration after each change of :attr:`state`.
    :param random: gives numbers from 0 up to 1; for the waits between attempts.
    """

    _log = Logger()

    def __init__(
        self,
        client: EtcdClient,
        clock: IReactorTime,
        path: str,
        instance: Instance,
        *,
        ttl: int,
        form: InstanceFormat = InstanceFormat.JSON,
        patient: bool,
        changed: Callable[[Registration], None],
        random: Callable[[], float],
    ) -> None:
        self.path = path
        self.instance = instance
        self.ttl = ttl
        self._form = form
        self.state = RegistrationState.WANTED
        self._client = client
        self._clock = clock
        self._patient = patient
        self._changed = changed
        self._backoff = Backoff(random, longest=_LONGEST_BACKOFF)
        self._registered: Moment[int] = Moment()
        #: Nothing is under way any more, whatever ended it.
        self._over: Moment[None] = Moment()
        #: The last lease that came to nothing is given back.
        self._giving_back: Moment[None] = Moment()
        self._giving_back.fire(None)
        self._lease: Lease | None = None
        self._running: Deferred[None] | None = None
        #: Whether somebody else's code is being called, so that nothing is waited for.
        self._telling = False

    def __repr__(self) -> str:
        return f"<Registration {self.path}, {self.state.value}>"

    @property
    def lease_id(self) -> int:
        """The lease that the key lives by now; 0 where there is none."""
        return self._lease.id if self._lease is not None else 0

    @property
    def seconds_left(self) -> float:
        """How long etcd keeps the key at least, by what it last confirmed."""
        return self._lease.seconds_left if self._lease is not None else 0.0

    def start(self) -> Deferred[int]:
        """
        Register, once; fires with the lease's id when etcd has the key.

        :raises ServiceStopped: it was taken back first.
        """
        if self.state is not RegistrationState.ENDED:
            self._running = Deferred.fromCoroutine(self._run())
            self._running.addErrback(self._finished)
        return self._registered.wait()

    async def _run(self) -> None:
        while True:
            try:
                lease = await self._register()
            except (RequestFailed, EtcdError) as error:
                if not self._patient and not self._registered.happened:
                    raise
                if not self._backoff.rounds:
                    self._log.warn("{path} cannot be registered, and is tried again: {why}", path=self.path, why=error)
                await deferLater(self._clock, self._backoff.next())
                continue
            self._backoff.reset()
            self._lease = lease
            self._call_out(lambda: self._become(RegistrationState.ALIVE))
            self._call_out(lambda: self._registered.fire(self.lease_id))
            lost = await lease.lost
            self._lease = None
            self._log.warn("{path} is registered again: {why}", path=self.path, why=lost)
            self._call_out(lambda: self._become(RegistrationState.LOST))

    async def _register(self) -> Lease:
        lease = await self._client.lease(self.ttl)
        try:
            await self._client.put(self.path, encode_instance(self.instance, self._form), lease=lease.id)
        except Exception:
            # The put may have been applied, or may yet be; with its lease the key goes too.
            await self._give_back(lease)
            raise
        return lease

    def _give_back(self, lease: Lease) -> Deferred[None]:
        """Revoke a lease; it goes on when nobody waits for it any longer, and never fails."""
        revoked: Moment[None] = Moment()

        def left(failure: Failure) -> None:
            self._log.warn("A lease of {path} is left to its TTL: {why}", path=self.path, why=str(failure.value))

        lease.revoke().addErrback(left).addCallback(revoked.fire)
        self._giving_back = revoked
        return revoked.wait()

    def _finished(self, failure: Failure) -> None:
        if self.state is RegistrationState.ENDED:
            failure = self._taken_back()
        elif self._registered.happened and not failure.check(ServiceStopped):
            self._log.failure("{path} is registered no longer.", failure, path=self.path)
        self._become(RegistrationState.ENDED)
        self._registered.fail(failure)
        self._giving_back.wait().addCallback(self._over.fire)

    def _taken_back(self) -> Failure:
        return Failure(ServiceStopped(f"the registration of {self.path} was taken back"))

    def _become(self, state: RegistrationState) -> None:
        if self.state is not state:
            self.state = state
            self._changed(self)

    def _call_out(self, call: Callable[[], None]) -> None:
        """Call what may call :meth:`take_back`, which cannot cancel what is not waiting."""
        self._telling = True
        try:
            call()
        finally:
            self._telling = False
        if self.state is RegistrationState.ENDED:
            raise CancelledError

    # --- looking after it -------------------------------------------------------------------------------------------

    def heartbeat(self) -> Deferred[int]:
        """
        Ask etcd now to keep the lease for another TTL, and see that it has the key.

        :return: fires with the seconds that it is kept for.
        :raises LeaseNotFound: it is not registered just now; that mends itself.
        """
        return Deferred.fromCoroutine(self._heartbeat())

    async def _heartbeat(self) -> int:
        seconds = await self._lease.keepalive_once() if self._lease is not None else 0
        if not await self.check() and self.state is not RegistrationState.ALIVE:
            raise LeaseNotFound(LeaseNotFound.grpc_code, f"{self.path} is not registered just now")
        return seconds

    async def check(self) -> bool:
        """
        See whether the key is there and lives by our lease; where it does not, put it there again.

        :return: whether all was well.
        """
        lease = self._lease
        if lease is None:
            return False
        response = await self._client.get(self.path, keys_only=True)
        if not self._lives_by(lease):
            return False
        found = response.kvs[0] if response.kvs else KeyValue()
        if found.lease == lease.id:
            self._become(RegistrationState.ALIVE)
            return True
        self._log.warn("{path} was deleted or taken over by somebody, and is put back", path=self.path)
        self._become(RegistrationState.LOST)
        if not self._lives_by(lease):
            return False
        try:
            # Unless somebody was faster: the next check sees to that.
            answer = await self._client.txn(
                compare=[compare.mod_revision(self.path, "=", found.mod_revision)],
                success=[op.put(self.path, encode_instance(self.instance, self._form), lease=lease.id)],
            )
        except LeaseNotFound:
            # By this the client learns of it, and then a new one is granted.
            with suppress(LeaseNotFound):
                await lease.keepalive_once()
            return False
        if answer.succeeded and self._lives_by(lease):
            self._become(RegistrationState.ALIVE)
        return False

    def _lives_by(self, lease: Lease) -> bool:
        return lease is self._lease and lease.alive

    # --- the end ----------------------------------------------------------------------------------------------------

    def take_back(self) -> Deferred[None]:
        """
        Remove the key now, and keep it registered no longer.

        :return: fires when it is gone, and nothing is under way.
        :raises RequestFailed: where etcd could not be told; the key then ends by its TTL.
        """
        if self.state is not RegistrationState.ENDED:
            self._become(RegistrationState.ENDED)
            if self._running is None:
                self._finished(self._taken_back())
            elif not self._telling:
                self._running.cancel()
        lease, self._lease = self._lease, None
        return lease.revoke() if lease is not None else self._over.wait()
