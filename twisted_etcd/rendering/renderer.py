"""The service that keeps files as their templates say."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorFromThreads, IReactorThreads
from twisted.internet.threads import deferToThreadPool

from twisted_etcd.backoff import Backoff
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.commands import CommandReactor
from twisted_etcd.config.paths import CONFIG_PREFIX
from twisted_etcd.errors import RenderError
from twisted_etcd.listeners import call_back
from twisted_etcd.registry.protection import Protection
from twisted_etcd.registry.registry import SERVICE_PREFIX
from twisted_etcd.rendering.entry import RenderEntry, RunCommand, SendSignal
from twisted_etcd.rendering.loading import load_template
from twisted_etcd.rendering.reload import Reload
from twisted_etcd.rendering.source import EtcdSource
from twisted_etcd.rendering.target import RenderStatus, Target
from twisted_etcd.rendering.template import Template, Want

#: Seconds: the longest wait after a first failure, and the longest there is.
BACKOFF = (1.0, 60.0)


class RenderReactor(CommandReactor, IReactorThreads):
    """What is used of the reactor: time, processes, and threads for what blocks."""


class Renderer(Service):
    """
    Keeps files as their templates say, while it runs.

    At its start it brings all of them up to date, and from then on each when something changes that it shows. What
    fails leaves the last good file where it is, and is tried again. Nothing is left running when it has stopped. It is
    started once.

    :param entries: the files.
    :param protection: what is held back where many instances of a service vanish at once; nothing unless given.
    :param environ: the environment that templates see; the process's own unless given.
    :param once: whether each is brought up to date once, without a second attempt.
    :param changed: called after each change of a file's status.
    :param random: gives numbers from 0 up to 1; for the waits between attempts.
    :raises InvalidSettings: where a template cannot be read, or is none.
    """

    def __init__(
        self,
        client: EtcdClient,
        reactor: RenderReactor,
        entries: Sequence[RenderEntry],
        *,
        config_prefix: str = CONFIG_PREFIX,
        service_prefix: str = SERVICE_PREFIX,
        protection: Protection | None = None,
        environ: Mapping[str, str] | None = None,
        once: bool = False,
        changed: Callable[[RenderStatus], None] = lambda _: None,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._reactor = reactor
        self._once = once
        self._changed = changed
        self._random = random
        self._environ = os.environ if environ is None else environ
        self._source = EtcdSource(
            client,
            reactor,
            self._told,
            config_prefix=config_prefix,
            service_prefix=service_prefix,
            protection=protection,
            random=random,
        )
        self._targets = [self._target(entry) for entry in entries]
        self._reloads = self._make_reloads()

    @property
    def status(self) -> tuple[RenderStatus, ...]:
        """How it goes with each file, in the order in which they were given."""
        return tuple(target.status for target in self._targets)

    def when_rendered(self) -> Deferred[None]:
        """
        Fires when each file has been brought up to date for the first time, and its readers told.

        :raises RenderError: with ``once``, where that failed for one or more, when all have been tried; with a line
            for each.
        """
        return Deferred.fromCoroutine(self._rendered())

    async def _rendered(self) -> None:
        errors = [await target.settled.wait() for target in self._targets]
        failed = [
            f"{target.entry.to}: {error}"
            for target, error in zip(self._targets, errors, strict=True)
            if error is not None
        ]
        if failed:
            raise RenderError("\n".join(failed))

    def render_again(self) -> None:
        """Read all templates again, and bring all files up to date. A template that is none now is used as it was."""
        for target in self._targets:
            target.render_again()

    def startService(self) -> None:
        """Begin."""
        super().startService()  # type: ignore[no-untyped-call]
        for reload in self._reloads:
            reload.start()
        for target in self._targets:
            target.start()

    def stopService(self) -> Deferred[None]:
        """Fires when nothing is under way: no command, no request, no thread."""
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        stopping = [target.stop() for target in self._targets]
        await gatherResults([*stopping, *(reload.stop() for reload in self._reloads)])
        await self._source.stop()

    # --- how it is put together ---------------------------------------------------------------------------------------

    def _target(self, entry: RenderEntry) -> Target:
        load: Callable[[], Template] = partial(load_template, entry.template, self._environ)
        return Target(
            entry,
            load,
            template=load(),
            source=self._source,
            reactor=self._reactor,
            in_thread=self._in_thread,
            backoff=self._backoff(),
            followed=self._keep,
            changed=self._tell,
            once=self._once,
        )

    def _make_reloads(self) -> list[Reload]:
        alike: dict[RunCommand | SendSignal, list[Target]] = {}
        for target in self._targets:
            if target.entry.reload is not None:
                alike.setdefault(target.entry.reload, []).append(target)
        return [self._reload(how, tuple(targets)) for how, targets in alike.items()]

    def _reload(self, how: RunCommand | SendSignal, targets: tuple[Target, ...]) -> Reload:
        timeout = max(target.entry.reload_timeout for target in targets)
        reload = Reload(self._reactor, how, timeout, lambda: targets, self._backoff(), again=not self._once)
        for target in targets:
            target.reload = reload
        return reload

    def _backoff(self) -> Backoff:
        return Backoff(self._random, *BACKOFF)

    def _in_thread(self, function: Callable[[], Any]) -> Deferred[Any]:
        return deferToThreadPool(IReactorFromThreads(self._reactor), self._reactor.getThreadPool(), function)

    # --- what comes and goes ------------------------------------------------------------------------------------------

    def _keep(self) -> None:
        self._source.keep(want for target in self._targets for want in target.wants)

    def _tell(self, status: RenderStatus) -> None:
        call_back(f"how it goes with {status.to}", self._changed, status)

    def _told(self, want: Want) -> None:
        for target in self._targets:
            target.told(want)
