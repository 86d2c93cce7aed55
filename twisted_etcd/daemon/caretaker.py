"""The service of the daemon that does what its settings file asks for: registers, follows, and says how it goes."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from twisted_etcd.backoff import Backoff
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.config.configuration import Configuration
from twisted_etcd.daemon.health_settings import CheckReactor, make_healths
from twisted_etcd.daemon.settings import RegisterSettings, Settings
from twisted_etcd.errors import (
    EtcdError,
    NotEtcd,
    PermissionDenied,
    RequestFailed,
    ServiceStopped,
    ServiceUnavailable,
    TLSFailed,
)
from twisted_etcd.messaging.routes import handles
from twisted_etcd.messaging.service import MessageService
from twisted_etcd.services.messages import (
    ETCD_SERVICE,
    EtcdConfigChangedMsg,
    EtcdConfigWatchReq,
    EtcdHeartbeatMsg,
    EtcdServiceRegisterReq,
    EtcdWatchEndedMsg,
)

ValueT = TypeVar("ValueT")

#: Its name in the daemon's node.
CARETAKER = "Caretaker"
#: Seconds after which the daemon says that etcd does not answer yet.
_GREETING_TIMEOUT = 1.0
#: Seconds: the longest wait between two attempts.
_LONGEST_BACKOFF = 5.0


class Caretaker(MessageService):
    """
    Registers the services and follows the configuration that the settings name, for as long as the daemon runs, and
    goes on trying while etcd is away. What happens is in the log; values are not.

    :param random: gives numbers from 0 up to 1; for the waits between attempts.
    """

    _log = Logger()

    def __init__(
        self,
        client: EtcdClient,
        reactor: IReactorTime,
        settings: Settings,
        random: Callable[[], float] = random.random,
    ) -> None:
        super().__init__(CARETAKER)
        self._client = client
        self._reactor = reactor
        self._settings = settings
        self._random = random
        self._tasks: list[Deferred[None]] = []
        #: By the number of its watch: the configuration key.
        self._followed: dict[int, str] = {}
        #: By the configuration key whose watch ended: the waits before it is followed again.
        self._again: dict[str, Backoff] = {}
        self._healthy: dict[tuple[str, str], bool] = {}

    def on_start(self) -> None:
        """Begin everything; nothing of it is waited for, since etcd can be away for long."""
        self._begin(self._start_all())

    async def _start_all(self) -> None:
        # One voice, for as long as etcd is away.
        await self._greet()
        for registration in self._settings.register:
            self._begin(self._register(registration))
        for key in self._settings.watch:
            self._begin(self._follow(key))

    def on_stop(self) -> None:
        """End what still tries; ``EtcdService`` ends the rest."""
        for task in tuple(self._tasks):
            task.cancel()

    def _begin(self, work: Coroutine[Deferred[Any], Any, None]) -> None:
        task = Deferred.fromCoroutine(work)
        self._tasks.append(task)
        task.addErrback(self._task_failed)
        task.addBoth(lambda _: self._tasks.remove(task))

    def _task_failed(self, failure: Failure) -> None:
        # Those are the ends that a stop brings.
        if not failure.check(CancelledError, ServiceStopped, ServiceUnavailable):
            self._log.failure("A task of the daemon failed.", failure)

    async def _insist(self, what: str, attempt: Callable[[], Deferred[ValueT]]) -> ValueT:
        """
        Try until it works, and say once of each kind of failure why it does not.

        What etcd refuses is tried again, too: users, passwords and permissions are mended there, and not here.

        :param what: what is tried, for the log: "register shop".
        """
        backoff = Backoff(self._random, longest=_LONGEST_BACKOFF)
        said: set[type[Exception]] = set()
        while True:
            try:
                return await attempt()
            except (RequestFailed, EtcdError) as error:
                if type(error) not in said:
                    said.add(type(error))
                    self._complain(what, error)
            await deferLater(self._reactor, backoff.next())

    def _complain(self, what: str, error: RequestFailed | EtcdError) -> None:
        level = LogLevel.error if _needs_somebody(error) else LogLevel.warn
        self._log.emit(level, "Cannot {what} yet, and will go on trying: {why}", what=what, why=str(error))

    async def _greet(self) -> None:
        """Wait until etcd answers us, and say so."""
        etcd = self._settings.etcd
        path = Configuration(self._client, self._reactor, etcd.config_prefix).path("-")
        where = ", ".join(endpoint.url for endpoint in self._client.endpoints)
        # The first time is short, so that whoever looks on hears of it soon.
        timeouts = itertools.chain([min(_GREETING_TIMEOUT, etcd.request_timeout)], itertools.repeat(None))

        async def greeting() -> None:
            try:
                await self._client.get(path, count_only=True, timeout=next(timeouts))
            except PermissionDenied:
                # Our user may not read this; what it may do is up to what the settings ask for.
                return

        await self._insist(f"use etcd at {where}", lambda: Deferred.fromCoroutine(greeting()))
        self._log.info("etcd answers at {where}", where=where)

    async def _register(self, wanted: RegisterSettings) -> None:
        request = EtcdServiceRegisterReq(
            service_name=wanted.name,
            service_address=wanted.address,
            ttl=wanted.ttl,
            tags=wanted.tags,
            metadata=wanted.metadata,
            heartbeat_to=self.handle,
            drain=wanted.drain,
            weight=wanted.weight,
            id=wanted.id,
            format=wanted.format.value,
            own_lease=wanted.own_lease,
            health=make_healths(cast("CheckReactor", self._reactor), wanted.checks),
        )
        what = f"register {wanted.name} at {wanted.address}"
        answer = await self._insist(what, lambda: self.call(ETCD_SERVICE, request, math.inf))
        if not answer.lease_id:
            self._log.info(
                "{name} at {address} is registered once its checks pass", name=wanted.name, address=wanted.address
            )

    async def _follow(self, key: str) -> None:
        request = EtcdConfigWatchReq(key)
        what = f"follow the configuration {key}"
        answer = await self._insist(what, lambda: self.call(ETCD_SERVICE, request, math.inf))
        self._followed[answer.watch_id] = key
        state = "not set" if answer.config_value is None else f"{len(answer.config_value)} bytes"
        self._log.info("The configuration {key} is followed: {state}", key=key, state=state)

    async def _follow_again(self, key: str) -> None:
        backoff = self._again.setdefault(key, Backoff(self._random, longest=_LONGEST_BACKOFF))
        await deferLater(self._reactor, backoff.next())
        await self._follow(key)

    # --- what comes of it -------------------------------------------------------------------------------------------

    @handles(EtcdConfigChangedMsg)
    def on_config_changed(self, message: EtcdConfigChangedMsg) -> None:
        """Say that it changed, not into what."""
        self._again.pop(message.key, None)
        size = "" if message.new_value is None else f": {len(message.new_value)} bytes"
        self._log.info(
            "The configuration {key} was {change} at revision {revision}{size}",
            key=message.key,
            change=message.change_type.value,
            revision=message.revision,
            size=size,
        )

    @handles(EtcdWatchEndedMsg)
    def on_watch_ended(self, message: EtcdWatchEndedMsg) -> None:
        """Follow it anew, after a wait that grows for as long as nothing comes of it."""
        key = self._followed.pop(message.watch_id)
        self._log.warn("The configuration {key} is followed anew: {why}", key=key, why=str(message.error))
        self._begin(self._follow_again(key))

    @handles(EtcdHeartbeatMsg)
    def on_heartbeat(self, message: EtcdHeartbeatMsg) -> None:
        """Say when a registration is lost, and when it is there again."""
        service = (message.service_name, message.service_address)
        if self._healthy.get(service) is message.healthy:
            return
        self._healthy[service] = message.healthy
        name, address = service
        if message.healthy:
            self._log.info("{name} at {address} is registered", name=name, address=address)
        else:
            text = "{name} at {address} is not registered now: {state}"
            self._log.warn(text, name=name, address=address, state=message.state.value)


def _needs_somebody(error: RequestFailed | EtcdError) -> bool:
    """Whether it will not pass by itself."""
    if isinstance(error, EtcdError):
        return not error.concerns_member
    return isinstance(error, NotEtcd | TLSFailed)
