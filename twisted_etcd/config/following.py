"""Keeps a view what etcd has: from the cache or the defaults on, through outages, and another cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_etcd.config.cache import VERSION, Cached, CacheFile
from twisted_etcd.config.changes import ConfigChange
from twisted_etcd.config.configuration import Configuration
from twisted_etcd.config.snapshot import ConfigSource, Entry
from twisted_etcd.config.view import Update, View
from twisted_etcd.errors import ServiceStopped
from twisted_etcd.listeners import Listeners
from twisted_etcd.moment import Moment
from twisted_etcd.recipes.follower import Change, RangeFollower

#: How many deletions are remembered, for histories.
_MOST_DELETIONS = 1000


class Following:
    """
    Follows what is below a prefix into a view.

    What etcd has counts, whatever was known before: of another cluster, of a cluster that was set back, of a cache.

    :param told: told what changed, after the first loading; an empty list where only revisions did.
    :param cache: written after changes, and read where etcd does not answer in time.
    :param has_defaults: whether the view may begin without either.
    :param fallback_after: seconds that etcd has to answer.
    :param patient: go on trying where the first reading fails, and nothing can stand in.
    :ivar loaded: when there is something to be read.
    :ivar source: where it comes from.
    """

    _log = Logger()

    def __init__(
        self,
        configuration: Configuration,
        view: View,
        told: Callable[[list[ConfigChange]], None],
        *,
        cache: CacheFile | None,
        has_defaults: bool,
        fallback_after: float,
        patient: bool,
        random: Callable[[], float],
    ) -> None:
        self.loaded: Moment[None] = Moment()
        self.source = ConfigSource.DEFAULTS
        self._configuration = configuration
        self._view = view
        self._told = told
        self._cache = cache
        self._has_defaults = has_defaults
        self._fallback_after = fallback_after
        self._patient = patient
        self._random = random
        self._deleted: dict[str, int] = {}
        self._last_good: dict[str, Entry] = {}
        #: Of the cache.
        self._revision = self._cluster_id = 0
        self._follower: RangeFollower | None = None
        self._is_over = False
        #: Told when :attr:`stale` changes.
        self.staleness: Listeners[bool] = Listeners(f"the configuration {configuration.paths.prefix} being stale")
        self._was_stale = True
        self._timer: IDelayedCall | None = None
        self._stopped = False

    @property
    def revision(self) -> int:
        """Etcd's revision that the view is of."""
        read = self._read_by
        return self._revision if read is None else read.revision

    @property
    def stale(self) -> bool:
        """Whether the view may be older than what etcd has."""
        read = self._read_by
        return read is None or read.stale

    @property
    def _read_by(self) -> RangeFollower | None:
        """What has filled the view from etcd; None before."""
        return self._follower if self.source is ConfigSource.ETCD else None

    def _look_at_staleness(self) -> None:
        if self.stale is not self._was_stale and not self._stopped:
            self._was_stale = self.stale
            self.staleness.tell(self._was_stale)

    @property
    def goes_on(self) -> bool:
        """Whether the view follows etcd, or will."""
        return self._follower is not None and not self._is_over

    def deleted_at(self, path: str) -> int:
        """The revision at which a key was seen to be deleted that is not there now; 0 where nobody saw it."""
        return self._deleted.get(path, 0)

    def start(self) -> None:
        """Begin."""
        cached = None if self._cache is None else self._cache.read()
        self._last_good = {} if cached is None else cached.last_good
        has_fallback = cached is not None or self._has_defaults
        if has_fallback and self._fallback_after == 0:
            self._fall_back(cached)
        elif has_fallback:
            self._timer = self._configuration.clock.callLater(self._fallback_after, self._fall_back, cached)
        if not self._stopped:
            self._follow(patient=self._patient or has_fallback)

    async def stop(self) -> None:
        """Follow it no longer, and write the cache."""
        self._stopped = self._is_over = True
        self._wait_no_longer()
        ending: list[Deferred[None]] = []
        if self._follower is not None:
            ending.append(self._follower.stop())
        if self._cache is not None:
            ending.append(self._cache.stop())
        self.loaded.fail(Failure(ServiceStopped("configuration was stopped before it was loaded")))
        await DeferredList(ending)

    def _wait_no_longer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    # --- the beginning ----------------------------------------------------------------------------------------------

    def _fall_back(self, cached: Cached | None) -> None:
        if cached is None:
            what = "the defaults"
        else:
            self.source, self._revision, self._cluster_id = ConfigSource.CACHE, cached.revision, cached.cluster
            what = f"the cache, of revision {cached.revision}"
        prefix = self._configuration.paths.prefix
        self._log.warn("The configuration {prefix} is that of {what} until etcd answers", prefix=prefix, what=what)
        self._begin({} if cached is None else cached.entries)

    def _begin(self, found: Mapping[str, Entry]) -> None:
        self._view.begin(found, self._last_good)
        self._last_good = {}
        wanting = self._view.wanting
        if wanting is None:
            self.loaded.fire(None)
        else:
            self.loaded.fail(Failure(wanting))
        self._told([])

    # --- etcd -------------------------------------------------------------------------------------------------------

    def _follow(self, *, patient: bool) -> None:
        follower = self._follower = RangeFollower(
            self._configuration.client,
            self._configuration.clock,
            self._configuration.paths.below,
            self._changed,
            patient=patient,
            lasting=True,
            random=self._random,
            prefix=True,
        )
        follower.on_stale(self._marked)
        follower.start().addCallbacks(lambda _: self._read(follower), self._not_read)
        follower.ended.addErrback(self._ended)

    def _read(self, follower: RangeFollower) -> None:
        """It is read for the first time."""
        self._wait_no_longer()
        found = self._configuration.entries(follower.current)
        if self._cluster_id not in (0, follower.cluster_id):
            self._log.info(
                "The configuration {prefix} is that of cluster {now:x}, and was that of {before:x}",
                prefix=self._configuration.paths.prefix,
                now=follower.cluster_id,
                before=self._cluster_id,
            )
        self.source = ConfigSource.ETCD
        # Before anybody is told, who may stop it all.
        self._keep()
        self._look_at_staleness()
        if self.loaded.happened:
            self._advance(self._view.differences(found, follower.revision))
        else:
            self._begin(found)

    def _not_read(self, failure: Failure) -> None:
        if not self._stopped:
            self.loaded.fail(failure)

    def _marked(self, stale: bool) -> None:  # noqa: FBT001 - as it is told
        if not stale:
            # It can have been read again, from another cluster even, and nothing be others than before.
            self._keep()
            self._told([])
        self._look_at_staleness()

    def _changed(self, changes: tuple[Change, ...]) -> None:
        updates = []
        for change in changes:
            path = self._configuration.paths.path(change.key)
            if path is not None:
                entry = None if change.new is None else Entry(change.new.value, change.new.mod_revision)
                updates.append(Update(path, entry, change.revision))
        self._keep()
        self._advance(updates)

    def _advance(self, updates: list[Update]) -> None:
        for update in updates:
            self._deleted.pop(update.path, None)
            if update.entry is None:
                self._deleted[update.path] = update.revision
                if len(self._deleted) > _MOST_DELETIONS:
                    del self._deleted[next(iter(self._deleted))]
        self._told(self._view.advance(updates))

    def _keep(self) -> None:
        if self._cache is not None and not self._stopped:
            self._cache.keep(self._to_be_cached)

    def _to_be_cached(self) -> Cached:
        prefix, remote, kept = self._configuration.paths.prefix, dict(self._view.remote), self._view.readings.kept
        read = self._read_by
        cluster_id = self._cluster_id if read is None else read.cluster_id
        return Cached(VERSION, prefix, f"{cluster_id:x}", self.revision, remote, kept)

    def _ended(self, failure: Failure) -> None:
        self._is_over = True
        if failure.check(ServiceStopped) and self._read_by is not None:
            prefix = self._configuration.paths.prefix
            self._log.warn("The configuration {prefix} is followed no longer: its client was stopped", prefix=prefix)
