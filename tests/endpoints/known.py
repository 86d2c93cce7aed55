"""Instances of a service that the test knows, in the place of etcd."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from twisted_etcd.endpoints.following import Hold
from twisted_etcd.moment import Moment
from twisted_etcd.registry.instance import Instance


class Known:
    """
    A source of views, all of one service.

    :ivar held: how many hold it.
    :ivar asked: the name and the idle time of each that came.
    """

    def __init__(self, *instances: Instance, loaded: bool = True) -> None:
        self.instances: Sequence[Instance] = instances
        self.held = 0
        self.asked: list[tuple[str, float]] = []
        self.loading: Moment[None] = Moment()
        self._change: Moment[None] = Moment()
        self.over = False
        if loaded:
            self.loading.fire(None)

    def hold(self, name: str, idle: float) -> Hold:
        self.asked.append((name, idle))
        self.held += 1
        return _KnownHold(self)

    def loaded(self) -> Deferred[None]:
        return self.loading.wait()

    def changed(self) -> Deferred[None]:
        return self._change.wait()

    def fails(self, error: Exception) -> None:
        """The reading under way comes to nothing; the next one is under way."""
        loading, self.loading = self.loading, Moment()
        loading.fail(Failure(error))

    def ends(self) -> None:
        """Nothing more comes for those who hold it now."""
        self.over = True
        self.becomes(*self.instances)

    def becomes(self, *instances: Instance) -> None:
        self.instances = instances
        change, self._change = self._change, Moment()
        change.fire(None)


class _KnownHold:
    def __init__(self, known: Known) -> None:
        self._known = known
        self._released = False

    @property
    def instances(self) -> Sequence[Instance]:
        return self._known.instances if self._known.loading.happened else ()

    @property
    def is_over(self) -> bool:
        return self._known.over

    def loaded(self) -> Deferred[None]:
        return self._known.loaded()

    def changed(self) -> Deferred[None]:
        return self._known.changed()

    def release(self) -> None:
        assert not self._released
        self._released = True
        self._known.held -= 1
