"""The views of a registry: one for each service, for all who ask for it in this process."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, DeferredList, TimeoutError, succeed  # noqa: A004 - addTimeout's
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_etcd.client.kv import is_time
from twisted_etcd.errors import DeadlineExceeded, EtcdError, InvalidSettings, RequestFailed, ServiceStopped
from twisted_etcd.registry.filter import InstanceFilter
from twisted_etcd.registry.instance import Instance
from twisted_etcd.registry.view import ServiceView

#: Seconds for the first loading of a view, unless told otherwise.
LOADING_TIMEOUT = 5.0
#: How many views are kept that nobody holds.
MOST_VIEWS = 1000


class Views:
    """
    Makes, keeps and ends the views of services.

    A view that was asked for by :meth:`view` is kept until it, or all of them, is stopped. One that was only asked what
    it knows is kept as well, but where there are more than 1,000 such that nobody listens to, the one that was not
    asked for the longest is let go. A view that ended is made anew for the next one who asks.

    :param make: makes the view of a service, to be started; it raises for a name that cannot be used.
    :param most: how many views are kept that nobody holds.
    """

    _log = Logger()

    def __init__(self, make: Callable[[str], ServiceView], clock: IReactorTime, most: int = MOST_VIEWS) -> None:
        self._make = make
        self._clock = clock
        self._most = most
        #: The one that was not asked for the longest first.
        self._views: dict[str, ServiceView] = {}
        #: Those that somebody holds.
        self._held: set[str] = set()
        self._ending: set[Deferred[None]] = set()
        self._stopped = False

    def __len__(self) -> int:
        return len(self._views)

    def view(self, name: str) -> ServiceView:
        """
        The view of a service, which is loading, or loaded.

        :raises InvalidSettings: where the name cannot be used.
        :raises ServiceStopped: after :meth:`stop`.
        """
        view = self.asked(name)
        self._held.add(name)
        return view

    def asked(self, name: str) -> ServiceView:
        """The same, for one who asks it now and does not hold it."""
        if self._stopped:
            msg = f"the registry was stopped, so there is no view of service {name!r}"
            raise ServiceStopped(msg)
        view = self._views.pop(name, None)
        if view is not None and view.stopped:
            # Somebody has stopped it, and it is not over yet.
            self._end(view)
            view = None
        if view is None:
            view = self._make(name)
            view.ended.addBoth(self._forget, name, view)
            view.start().addErrback(lambda _: None)
            self._views[name] = view
            self._let_go()
        else:
            self._views[name] = view
        return view

    def known(self, name: str) -> ServiceView | None:
        """The view of a service, where there is one that is loaded."""
        view = self._views.get(name)
        return view if view is not None and view.loaded else None

    def loaded(self, name: str, timeout: float | None = None) -> Deferred[ServiceView]:
        """
        The view of a service, once it is loaded: at once, but for the first one who asks.

        Where it cannot be loaded in time, it goes on trying, for those who ask later.

        :param timeout: seconds; 5 where it is None.
        :raises RequestFailed: etcd cannot be reached; :exc:`DeadlineExceeded` or :exc:`Unavailable`.
        :raises EtcdError: etcd refuses.
        :raises InvalidSettings: where the name or the timeout cannot be used.
        """
        if timeout is not None and not is_time(timeout, "timeout"):
            msg = f"timeout must be a number of seconds from 0 on, not {timeout!r}"
            raise InvalidSettings(msg)
        view = self.asked(name)
        if view.loaded:
            return succeed(view)
        return Deferred.fromCoroutine(self._load(name, view, LOADING_TIMEOUT if timeout is None else timeout))

    async def _load(self, name: str, view: ServiceView, timeout: float) -> ServiceView:
        end = self._clock.seconds() + timeout
        failed: Exception | None = None
        while not view.loaded:
            left = end - self._clock.seconds()
            if left <= 0:
                msg = f"the instances of service {name!r} could not be read within {timeout:g} s, and are tried again"
                raise failed or DeadlineExceeded(msg)
            failed = await self._attempt(view, left) or failed
        return view

    async def _attempt(self, view: ServiceView, seconds: float) -> Exception | None:
        """Wait for the next reading; what it fails with where that can be another the next time."""
        try:
            await view.next_reading().addTimeout(seconds, self._clock)
        except RequestFailed as error:
            return error
        except EtcdError as error:
            if not error.concerns_member:
                raise
            return error
        except TimeoutError:
            return None
        return None

    def instances(
        self, name: str, where: InstanceFilter, timeout: float | None = None
    ) -> Deferred[tuple[Instance, ...]]:
        """The instances of a service that a filter picks, by its view; see :meth:`loaded`."""
        return self.loaded(name, timeout).addCallback(lambda view: view.select(where))

    # --- the end ----------------------------------------------------------------------------------------------------

    def stop(self) -> Deferred[None]:
        """End them all, and give none any more; fires when nothing of them is under way."""
        self._stopped = True
        for view in tuple(self._views.values()):
            self._end(view)
        return DeferredList(list(self._ending)).addCallback(lambda _: None)

    def _let_go(self) -> None:
        loose = [name for name, view in self._views.items() if name not in self._held and not view.is_listened_to]
        for name in loose[: max(0, len(loose) - self._most)]:
            self._end(self._views[name])

    def _end(self, view: ServiceView) -> None:
        ending = view.stop()
        self._ending.add(ending)
        ending.addBoth(self._is_over, ending)

    def _is_over(self, result: object, ending: Deferred[None]) -> None:
        self._ending.discard(ending)
        if isinstance(result, Failure):
            self._log.failure("A view could not be ended.", result)

    def _forget(self, _: object, name: str, view: ServiceView) -> None:
        if self._views.get(name) is view:
            del self._views[name]
            self._held.discard(name)
