"""Views of services, shared by those who connect, and let go when nobody has used them for a while."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_etcd.endpoints.etcd import follow
from twisted_etcd.errors import ServiceStopped
from twisted_etcd.moment import Moment
from twisted_etcd.registry.instance import Instance
from twisted_etcd.registry.registry import Registry

#: Seconds that a service is followed after its last use, unless told otherwise.
IDLE = 60.0


class Hold(Protocol):
    """The use of a view; it is followed at least until this is released."""

    @property
    def instances(self) -> Sequence[Instance]:
        """All there are by what is known, in the order of their keys."""

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come: who wants more holds the service anew."""

    def loaded(self) -> Deferred[None]:
        """Fires when they have been read once, and fails with why they could not be."""

    def changed(self) -> Deferred[None]:
        """Fires with the next change, or when nothing more will come."""

    def release(self) -> None:
        """It is used no longer; a second time is ignored."""


class Source(Protocol):
    """Where those who connect get views from."""

    def hold(self, name: str, idle: float) -> Hold:
        """
        Follow a service.

        :param idle: seconds that it is to be followed after it was released.
        """


class Views:
    """
    The services of a registry that are followed.

    :param emptied: called when there is none any more.
    """

    def __init__(self, registry: Registry, clock: IReactorTime, emptied: Callable[[], None] = lambda: None) -> None:
        self._registry = registry
        self._clock = clock
        self._emptied = emptied
        self._followed: dict[str, _Followed] = {}
        #: Those that are followed no longer, and have something under way yet.
        self._ending: set[_Followed] = set()

    def __len__(self) -> int:
        return len(self._followed) + len(self._ending)

    def hold(self, name: str, idle: float = IDLE) -> Hold:
        """See :class:`Source`."""
        followed = self._followed.get(name)
        if followed is None:
            followed = self._followed[name] = _Followed(self._registry, self._clock, name, self._ends, self._ended)
            followed.start()
        return followed.hold(idle)

    def stop(self) -> Deferred[None]:
        """Follow nothing any more; fires when nothing is under way."""
        stopping = [followed.stop() for followed in [*self._followed.values(), *self._ending]]
        return gatherResults(stopping).addCallback(lambda _: None)

    def _ends(self, followed: _Followed) -> None:
        if self._followed.get(followed.name) is followed:
            del self._followed[followed.name]
            self._ending.add(followed)

    def _ended(self, followed: _Followed) -> None:
        self._ending.discard(followed)
        if not len(self):
            self._emptied()


class _Followed:
    """
    A service, followed for those who hold it.

    :param ends: told that nobody is to get it any more.
    :param ended: told that nothing of it is under way any more.
    """

    _log = Logger()

    def __init__(
        self,
        registry: Registry,
        clock: IReactorTime,
        name: str,
        ends: Callable[[_Followed], None],
        ended: Callable[[_Followed], None],
    ) -> None:
        self.name = name
        self.loaded: Moment[None] = Moment()
        self.change: Moment[None] = Moment()
        self._clock = clock
        self._ends = ends
        self._ended = ended
        self._view = follow(registry, name, self._changed)
        self._over: Moment[None] = Moment()
        self._holds = 0
        self._idle = 0.0
        self._timer: IDelayedCall | None = None

        #: Nobody is to get it any more.
        self.is_over = False

    @property
    def instances(self) -> Sequence[Instance]:
        return self._view.instances

    def start(self) -> None:
        self._view.ended.addBoth(self._no_more)
        self._view.start().addCallbacks(self.loaded.fire, self.loaded.fail)

    def hold(self, idle: float) -> Hold:
        self._holds += 1
        self._idle = max(self._idle, idle)
        self._stay()
        return _Held(self)

    def release(self) -> None:
        self._holds -= 1
        if self._holds or self.is_over:
            return
        if self._idle:
            self._timer = self._clock.callLater(self._idle, self.stop)
        else:
            self.stop()

    def stop(self) -> Deferred[None]:
        self._ending()
        self._view.stop()
        return self._over.wait()

    def _stay(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _changed(self) -> None:
        change, self.change = self.change, Moment()
        change.fire(None)

    def _ending(self) -> None:
        self.is_over = True
        self._stay()
        self._ends(self)

    def _no_more(self, why: object) -> None:
        self._ending()
        if isinstance(why, Failure) and self.loaded.happened and not why.check(ServiceStopped):
            self._log.warn("{name} is followed anew when it is used: {why}", name=self.name, why=str(why.value))
        self.change.fire(None)
        # What it has under way ends with it.
        self._view.stop().addCallback(self._all_over)

    def _all_over(self, _: None) -> None:
        self._over.fire(None)
        self._ended(self)


class _Held:
    """See :class:`Hold`."""

    def __init__(self, followed: _Followed) -> None:
        self._followed = followed
        self._released = False

    @property
    def instances(self) -> Sequence[Instance]:
        return self._followed.instances

    @property
    def is_over(self) -> bool:
        return self._followed.is_over

    def loaded(self) -> Deferred[None]:
        return self._followed.loaded.wait()

    def changed(self) -> Deferred[None]:
        return self._followed.change.wait()

    def release(self) -> None:
        if not self._released:
            self._released = True
            self._followed.release()
