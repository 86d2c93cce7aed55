"""One registration, which holds from when it is asked for until it is taken back."""

from __future__ import annotations

import enum
from collections.abc import Callable

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_etcd.client.client import EtcdClient
from twisted_etcd.client.lease import Lease
from twisted_etcd.moment import Moment
from twisted_etcd.errors import EtcdError, LeaseNotFound, RequestFailed, ServiceStopped, TwistedEtcdError
from twisted_etcd.backoff import Backoff
from twisted_etcd.registry.instance import Instance, encode_instance

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
        patient: bool,
        changed: Callable[[Registration], None],
        random: Callable[[], float],
    ) -> None:
        self.path = path
        self.instance = instance
        self.ttl = ttl
        self.state = RegistrationState.WANTED
        self._client = client
        self._clock = clock
        self._patient = patient
        self._changed = changed
        self._backoff = Backoff(random, longest=_LONGEST_BACKOFF)
        self._registered: Moment[int] = Moment()
        self._lease: Lease | None = None
        self._running: Deferred[None] | None = None

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
        """Register; fires with the lease's id when etcd has the key."""
        self._running = Deferred.fromCoroutine(self._run())
        self._running.addErrback(self._failed)
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
            self._become(RegistrationState.ALIVE)
            self._registered.fire(lease.id)
            lost = await lease.lost
            self._lease = None
            self._log.warn("{path} is registered again: {why}", path=self.path, why=lost)
            self._become(RegistrationState.LOST)

    async def _register(self) -> Lease:
        lease = await self._client.lease(self.ttl)
        try:
            await self._client.put(self.path, encode_instance(self.instance), lease=lease.id)
        except BaseException:
            # The put may have been applied; with its lease the key goes too.
            lease.revoke().addErrback(self._not_revoked)
            raise
        self._lease = lease
        return lease

    def _not_revoked(self, failure: Failure) -> None:
        failure.trap(TwistedEtcdError)
        self._log.info("A lease of {path} was left to its TTL: {why}", path=self.path, why=str(failure.value))

    def _failed(self, failure: Failure) -> None:
        self._become(RegistrationState.ENDED)
        if failure.check(CancelledError):
            failure = Failure(ServiceStopped(f"the registration of {self.path} was taken back"))
        self._registered.fail(failure)

    def _become(self, state: RegistrationState) -> None:
        if self.state is not state:
            self.state = state
            self._changed(self)

    # --- looking after it -------------------------------------------------------------------------------------------

    def heartbeat(self) -> Deferred[int]:
        """
        Ask etcd now to keep the lease for another TTL.

        :return: fires with the seconds that it is kept for.
        :raises LeaseNotFound: it is not registered just now; that mends itself.
        """
        lease = self._lease
        if lease is None:
            return Deferred.fromCoroutine(self._no_lease())
        return lease.keepalive_once()

    async def _no_lease(self) -> int:
        raise LeaseNotFound(LeaseNotFound.grpc_code, f"{self.path} is not registered just now")

    async def check(self) -> bool:
        """
        See whether the key is there and lives by our lease; where it does not, put it there again.

        :return: whether all was well.
        """
        lease = self._lease
        if lease is None:
            return False
        response = await self._client.get(self.path, keys_only=True)
        if lease is not self._lease or not lease.alive:
            return False
        if response.kvs and response.kvs[0].lease == lease.id:
            return True
        self._log.warn("{path} was deleted or taken over by somebody, and is put back", path=self.path)
        await self._client.put(self.path, encode_instance(self.instance), lease=lease.id)
        return False

    def take_back(self) -> Deferred[None]:
        """
        Remove the key now, and keep it registered no longer.

        :raises RequestFailed: where etcd could not be told; the key then ends by its TTL.
        """
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
        self._become(RegistrationState.ENDED)
        lease, self._lease = self._lease, None
        return lease.revoke() if lease is not None else succeed(None)
