"""One registration, which holds from when it is asked for until it is taken back."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_etcd.client import op
from twisted_etcd.client.kv import is_time
from twisted_etcd.client.lease import Lease
from twisted_etcd.errors import EtcdError, InvalidSettings, LeaseNotFound, RequestFailed, ServiceStopped
from twisted_etcd.moment import Moment
from twisted_etcd.registry.convoy import Convoy, Done
from twisted_etcd.registry.health.monitor import HealthMonitor
from twisted_etcd.registry.instance import Instance, InstanceFormat, Status, change_instance, encode_instance
from twisted_etcd.registry.lookout import found_in
from twisted_etcd.registry.lookouts import Lookouts, read_key
from twisted_etcd.registry.machine import (
    Action,
    Actions,
    Doubt,
    Found,
    GiveUp,
    Join,
    Leave,
    Linger,
    Put,
    RegistrationMachine,
    RegistrationState,
    Remove,
    Say,
    Wait,
    WaitNoLonger,
    Write,
)
from twisted_etcd.registry.notices import Notices
from twisted_etcd.registry.straggler import remove_key
from twisted_etcd.registry.tenancy import Tenancy
from twisted_etcd.registry.ticks import Tick, Ticks

#: Told of each change.
StateCallback = Callable[["Registration"], object]

_TAKEN = "deleted or taken over by somebody, and put back: {keys}"
_CONTESTED = (
    "taken or deleted again and again by somebody else, and put back after waits: {keys}; see that each instance has an"
    " address of its own"
)
_FAILED = "{keys} cannot be registered, which is tried again: {why}"
_NOT_REMOVED = "{keys} cannot be removed, which is tried again: {why}"
_LEFT = "left to its TTL: {keys}: {why}"


class Home(Protocol):
    """
    Where registrations live: the registry.

    :ivar leave_timeout: seconds that giving a lease back may take; None for the client's own time.
    """

    clock: IReactorTime
    convoy: Convoy
    ticks: Ticks
    lookouts: Lookouts
    notices: Notices
    leave_timeout: float | None

    def is_current(self, registration: Registration) -> bool:
        """Whether it is what is wanted at its key now."""

    def has_others(self, registration: Registration) -> bool:
        """Whether another registration has the same key, or is about to."""

    def changed(self, registration: Registration) -> None:
        """Its state did; called before its own callbacks."""

    def ended(self, registration: Registration) -> None:
        """Nothing of it is left."""

    def drains(self, draining: Deferred[None]) -> None:
        """Something is to be waited for at the end."""

    def linger(self, registration: Registration, lease: int) -> None:
        """See for a while that no late put brings its key back."""


def checked_drain(drain: float) -> float:
    """
    Seconds between the removal of a key and the end.

    :raises InvalidSettings: where they are less than 0.
    :raises TypeError: where they are no number.
    """
    if not is_time(drain, "drain"):
        msg = f"drain must be at least 0 seconds, and finite, not {drain!r}"
        raise InvalidSettings(msg)
    return drain


class Registration:
    """
    Keeps a key in etcd for an instance of a service. Made and started by ``registry.register(…)``.

    Whatever happens to the lease or to the key, it comes back, for ever: with a new lease where that was lost, and at
    once where somebody deleted or overwrote the key; after growing waits where that happens again and again.

    :ivar path: the key.
    :ivar service: the prefix that the keys of its service have.
    :ivar ttl: seconds that the key stays when nothing is heard of this process any more.
    :ivar drain: seconds that :meth:`take_back` waits when the key is gone, unless told otherwise.
    :ivar health: what looks after its health, and withholds and offers it; None where nothing does.
    """

    _log = Logger()

    def __init__(
        self,
        home: Home,
        tenancy: Tenancy,
        service: str,
        path: str,
        instance: Instance,
        *,
        form: InstanceFormat,
        drain: float,
        patient: bool,
        withheld: bool,
        random: Callable[[], float],
    ) -> None:
        self.path = path
        self.service = service
        self.ttl = tenancy.ttl
        self.drain = drain
        self.health: HealthMonitor | None = None
        self._home = home
        self._tenancy = tenancy
        self._instance = instance
        self._form = form
        value = encode_instance(instance, form)
        self._machine = RegistrationMachine(value, patient=patient, withheld=withheld, random=random)
        self._state = self._machine.state
        self._since = home.clock.seconds()
        self._lease: Lease | None = None
        self._todo: deque[Action] = deque()
        self._doing = False
        self._writing: Deferred[Done] | None = None
        self._pause: Tick | None = None
        self._callbacks: list[StateCallback] = []
        #: Those who wait for etcd to have what is wanted.
        self._settling: list[Deferred[bool]] = []
        self._answered: Moment[None] = Moment()
        self._registered: Moment[int] = Moment()
        #: Why it gave up, where it did.
        self._given_up: Exception | None = None
        self._gone: Moment[None] = Moment()
        self._is_over = False

    def __repr__(self) -> str:
        return f"<Registration {self.path}, {self.state.value}>"

    # --- what it is -------------------------------------------------------------------------------------------------

    @property
    def state(self) -> RegistrationState:
        """How it is."""
        return self._state

    @property
    def since(self) -> float:
        """The reactor's time of the last change of :attr:`state`."""
        return self._since

    @property
    def instance(self) -> Instance:
        """What is registered, with all updates."""
        return self._instance

    @property
    def registered(self) -> Deferred[int]:
        """
        A new Deferred that fires with the lease's id once etcd has had the key.

        It fails with what the first attempt failed with, where there was no patience; and with
        :class:`~twisted_etcd.errors.ServiceStopped` where it was taken back, or replaced, first.
        """
        return self._registered.wait()

    @property
    def lease_id(self) -> int:
        """The lease that the key lives by, or is to live by; 0 where there is none."""
        return self._lease.id if self._lease is not None else 0

    @property
    def seconds_left(self) -> float:
        """How long etcd keeps the key at least, by what it last confirmed; 0 where it is not there."""
        if self._lease is None or self._state is not RegistrationState.ALIVE:
            return 0.0
        return self._lease.seconds_left

    @property
    def last_error(self) -> Exception | None:
        """What went wrong last; None once all is as wanted again."""
        return self._machine.last_error

    @property
    def writes(self) -> int:
        """How often it has asked for a write."""
        return self._machine.writes

    def describe(self) -> str:
        """In words, for people: its key, its state and since when, its lease, what it does, and the last error."""
        seconds = self._home.clock.seconds() - self._since
        lease = f"lease {self.lease_id:x}" if self.lease_id else "no lease"
        error = "" if self.last_error is None else f"; last error: {self.last_error}"
        health = "" if self.health is None else f"; health: {self.health.status.value}, {self.health.why}"
        return f"{self.path}: {self.state.value} for {seconds:.0f} s, {lease}, {self._machine.doing}{health}{error}"

    def on_change(self, callback: StateCallback) -> Callable[[], None]:
        """
        Call a function with this registration after each change of its state. What it raises is logged.

        :return: a function that ends that.
        :raises TypeError: for what cannot be called.
        """
        if not callable(callback):
            msg = f"callback must be a function that takes a Registration, not {type(callback).__name__}"
            raise TypeError(msg)
        self._callbacks.append(callback)

        def remove() -> None:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

        return remove

    # --- what can be done to it -------------------------------------------------------------------------------------

    def update(
        self,
        *,
        tags: Sequence[str] | None = None,
        metadata: Mapping[str, str] | None = None,
        weight: int | None = None,
        status: Status | None = None,
    ) -> Deferred[bool]:
        """
        Change what is registered; what is None stays. While it is withheld or lost, it comes back with the change.

        :return: fires with True once etcd has what is wanted, which is tried for ever, and with False where it was
            taken back first.
        :raises InvalidSettings: for what cannot be registered.
        """
        self._instance = change_instance(self._instance, tags=tags, metadata=metadata, weight=weight, status=status)
        self._do(self._machine.update(encode_instance(self._instance, self._form)))
        return self._settled()

    def withhold(self) -> Deferred[bool]:
        """
        Remove the key, until :meth:`offer`: a lost lease does not bring it back. It stays registered in all else.

        :return: fires as :meth:`update` does.
        """
        self._do(self._machine.withhold())
        return self._settled()

    def offer(self) -> Deferred[bool]:
        """
        Put the key back after :meth:`withhold`.

        :return: fires as :meth:`update` does.
        """
        self._do(self._machine.offer())
        return self._settled()

    def take_back(self, drain: float | None = None) -> Deferred[None]:
        """
        Remove the key now, and keep it registered no longer.

        :param drain: seconds to wait when the key is gone, for those who still use what they found; what it was
            registered with where it is None. Cancelling the Deferred ends the wait.
        :return: fires when the key is gone and the wait is over.
        :raises RequestFailed: where etcd could not be told. A lease of its own then ends by its TTL; while others live
            by the lease, the removal is tried until it is done.
        :raises InvalidSettings: where the drain cannot be used.
        """
        seconds = self.drain if drain is None else checked_drain(drain)
        self._take_back()
        return self._draining(seconds)

    def _draining(self, seconds: float) -> Deferred[None]:
        # Where it never was there, nobody has found it.
        draining = Deferred.fromCoroutine(self._drained(seconds if self._machine.registered else 0.0))
        if not draining.called:
            self._home.drains(draining)
        return draining

    async def _drained(self, seconds: float) -> None:
        await self._gone.wait()
        if seconds:
            await deferLater(self._home.clock, seconds)

    def _take_back(self) -> None:
        remove = not self._tenancy.is_sole(self) and not self._home.has_others(self)
        self._do(self._machine.take_back(remove=remove))

    def _settled(self) -> Deferred[bool]:
        if self._machine.is_settled:
            return succeed(result=True)
        if self._state is RegistrationState.ENDED:
            return succeed(result=False)
        waiting: Deferred[bool] = Deferred(self._forget)
        self._settling.append(waiting)
        return waiting

    def _forget(self, waiting: Deferred[bool]) -> None:
        self._settling = [each for each in self._settling if each is not waiting]

    # --- looking after it -------------------------------------------------------------------------------------------

    def heartbeat(self) -> Deferred[int]:
        """
        Ask etcd now to keep the lease for another TTL, and see that it has the key.

        :return: fires with the seconds that it is kept for.
        :raises LeaseNotFound: it is not registered just now, which mends itself, or it is withheld.
        """
        return Deferred.fromCoroutine(self._heartbeat())

    async def _heartbeat(self) -> int:
        seconds = await self._lease.keepalive_once() if self._lease is not None else 0
        await self._check()
        if self._state is not RegistrationState.ALIVE:
            raise LeaseNotFound(LeaseNotFound.grpc_code, f"{self.path} is {self._state.value}, and not registered now")
        return seconds

    def check(self) -> Deferred[bool]:
        """
        See whether etcd has what is wanted; where it does not, mend it.

        :return: fires with whether all was well, after the first attempt to mend it where it was not.
        """
        return Deferred.fromCoroutine(self._check())

    async def _check(self) -> bool:
        if self._lease is None or self._state is RegistrationState.ENDED:
            return False
        writes = self._machine.writes
        reading = await read_key(self._home.convoy, self.path)
        if self._lease is None or self._is_over:
            return False
        self.key_read(found_in(reading.kvs.get(self.path), reading.revision), writes)
        if self._machine.is_settled:
            return True
        if self._machine.is_writing:
            await self._answered.wait()
        return False

    # --- for the registry -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin, once."""
        self._do(self._machine.begin())

    def pause(self) -> None:
        """Another registration of the key is about to take its place."""
        self._do(self._machine.pause())

    def resume(self) -> None:
        """It came to nothing."""
        self._do(self._machine.resume())

    def give_way(self, *, remove: bool) -> None:
        """
        It has been replaced.

        :param remove: whether what replaces it is not to be there.
        """
        self._do(self._machine.take_back(remove=remove and not self._tenancy.is_sole(self)))

    def leave(self, drain: float) -> Deferred[None]:
        """The registry stops: the key goes with the lease. Fires as :meth:`take_back` does."""
        self._do(self._machine.take_back(remove=False))
        return self._draining(max(drain, self.drain))

    # --- for the lease ----------------------------------------------------------------------------------------------

    def lease_granted(self, lease: Lease) -> None:
        """See :class:`~twisted_etcd.registry.tenancy.Tenant`."""
        self._lease = lease
        self._do(self._machine.granted(lease.id))

    def lease_refused(self, error: Exception) -> None:
        """Likewise."""
        self._do(self._machine.refused(error))

    def lease_lost(self) -> None:
        """Likewise."""
        self._lease = None
        self._do(self._machine.lost())

    def lease_ended(self, failure: Failure) -> None:
        """Likewise."""
        self._lease = None
        self._broke(failure)

    # --- for the lookout --------------------------------------------------------------------------------------------

    def key_seen(self, found: Found) -> None:
        """See :class:`~twisted_etcd.registry.lookout.Watched`."""
        self._do(self._machine.seen(found, self._home.clock.seconds()))

    def key_read(self, found: Found, writes: int) -> None:
        """Likewise."""
        self._do(self._machine.read(found, self._home.clock.seconds(), writes=writes))

    def history_gone(self) -> None:
        """Likewise."""
        self._machine.forget()

    # --- what the machine says --------------------------------------------------------------------------------------

    def _do(self, actions: Actions) -> None:
        """Do it, in order, also where doing one thing brings the next; then tell what has changed."""
        self._todo.extend(actions)
        if self._doing:
            return
        self._doing = True
        try:
            while self._todo:
                self._act(self._todo.popleft())
        finally:
            self._doing = False
        self._tell()

    def _act(self, action: Action) -> None:
        match action:
            case Join():
                self._tenancy.join(self)
            case Leave():
                self._leave()
            case Put() | Remove():
                self._write(action)
            case Wait():
                self._pause = self._home.ticks.after(action.seconds, self._waited)
            case WaitNoLonger():
                self._wait_no_longer()
            case Doubt():
                self._tenancy.doubt(action.lease)
            case Linger():
                self._home.linger(self, action.lease)
            case Say():
                self._home.notices.warn(_CONTESTED if action.again else _TAKEN, self.path)
            case GiveUp():
                self._given_up = action.error
                self._take_back()

    def _wait_no_longer(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None

    def _waited(self) -> None:
        self._pause = None
        self._do(self._machine.waited())

    def _write(self, write: Write) -> None:
        convoy = self._home.convoy
        if isinstance(write, Put):
            put = op.put(self.path, write.value, lease=write.lease)
            writing = convoy.do(self.path, put, lease=write.lease, size=len(self.path) + len(write.value))
        else:
            writing = remove_key(convoy, self.path, write.lease)
        self._writing = writing
        writing.addCallbacks(self._written, self._not_written, callbackArgs=(writing,), errbackArgs=(writing,))

    def _written(self, done: Done, writing: Deferred[Done]) -> None:
        if writing is not self._writing:
            return
        self._writing = None
        self._do(self._machine.written(done.revision, self._home.clock.seconds()))
        self._look()

    def _not_written(self, failure: Failure, writing: Deferred[Done]) -> None:
        if writing is not self._writing:
            return
        self._writing = None
        error = failure.value
        if not isinstance(error, RequestFailed | EtcdError):
            self._broke(failure)
            return
        is_new = self._machine.last_error is None
        self._do(self._machine.not_written(error))
        if is_new and self._given_up is None and not isinstance(error, LeaseNotFound):
            ending = self._state in (RegistrationState.WITHHELD, RegistrationState.ENDED)
            self._home.notices.warn(_NOT_REMOVED if ending else _FAILED, self.path, error)
        self._look()

    def _look(self) -> None:
        """See to it that others' changes of the key are seen, and tell who waits for an answer."""
        if not self._is_over and self._machine.registered and self._home.is_current(self):
            self._home.lookouts.add(self.service, self, self._machine.revision)
        answered, self._answered = self._answered, Moment()
        answered.fire(None)

    def _leave(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.cancel()
        self._lease = None

        def left(result: Failure | None) -> None:
            error = result.value if isinstance(result, Failure) else None
            if isinstance(error, Exception):
                self._home.notices.warn(_LEFT, self.path, error)
            self._do(self._machine.left(error if isinstance(error, Exception) else None))

        timeout = self._home.leave_timeout
        self._tenancy.leave(self, with_all=timeout is not None, timeout=timeout).addBoth(left)

    def _broke(self, failure: Failure) -> None:
        """Nothing can be done any more: the client was stopped, or there is a mistake in the program."""
        error = failure.value
        if self._given_up is None and isinstance(error, Exception):
            self._given_up = error
        if not failure.check(ServiceStopped):
            self._log.failure("{path} is registered no longer.", failure, path=self.path)
        self._do(self._machine.stopped())

    # --- telling ----------------------------------------------------------------------------------------------------

    def _tell(self) -> None:
        machine = self._machine
        if machine.state is not self._state:
            self._state = machine.state
            self._since = self._home.clock.seconds()
            self._home.changed(self)
            for callback in tuple(self._callbacks):
                self._call(callback)
        if self._state is RegistrationState.ALIVE:
            self._registered.fire(self.lease_id)
        if machine.is_settled:
            self._settle(result=True)
        elif self._state is RegistrationState.ENDED:
            self._settle(result=False)
        if self._state is RegistrationState.ENDED:
            self._tell_end()

    def _call(self, callback: StateCallback) -> None:
        try:
            callback(self)
        except Exception:  # noqa: BLE001 - somebody else's code; the others are told all the same
            self._log.failure("Who is told of {path} failed.", path=self.path)

    def _settle(self, *, result: bool) -> None:
        settling, self._settling = self._settling, []
        for waiting in settling:
            # One that fires can cancel those behind it.
            if not waiting.called:
                waiting.callback(result)

    def _tell_end(self) -> None:
        machine = self._machine
        if machine.is_over and not self._is_over:
            # First, so that whoever is told finds nothing of it.
            self._is_over = True
            self._home.lookouts.remove(self.service, self)
            self._home.ended(self)
            self._look()
        if self._given_up is None:
            self._registered.fail(Failure(ServiceStopped(f"the registration of {self.path} was taken back")))
        elif machine.is_over or machine.failure is not None:
            # What its first attempt may have left is removed, or cannot be.
            self._registered.fail(Failure(self._given_up))
        if machine.failure is not None:
            self._gone.fail(Failure(machine.failure))
        elif machine.is_over:
            self._gone.fire(None)


__all__ = ["Home", "Registration", "RegistrationState", "StateCallback", "checked_drain"]
