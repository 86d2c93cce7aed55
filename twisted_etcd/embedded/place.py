"""Where an etcd of our own keeps its data, and what it listens on."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from twisted.logger import Logger

from twisted_etcd.embedded.ports import Ports, free_ports, remember_ports, remembered_ports


class Place:
    """
    The directory and the ports of one etcd.

    :param kept: a directory of its own, made if missing, which remembers the ports; None for a temporary one.
    :param wanted: the ports; 0 for one that is remembered, else free.
    :ivar ports: once they were chosen; the same from then on, through any number of starts.
    """

    _log = Logger()

    def __init__(self, kept: Path | None, wanted: Ports) -> None:
        self.ports: Ports | None = None
        self._kept = kept
        self._wanted = wanted
        self._directory: Path | None = None

    def prepare(self) -> tuple[Path, Ports]:
        """
        The directory for etcd's data and the ports, chosen where that was not done yet.

        :raises OSError: where the directory cannot be made or used.
        """
        if self._directory is None:
            self._directory = self._make_directory()
        if self.ports is None:
            self.ports = self._first_ports()
        return self._directory / "etcd", self.ports

    @property
    def can_move(self) -> bool:
        """Whether there is a port that may be another one."""
        return 0 in (self._wanted.client, self._wanted.peer)

    def move(self) -> None:
        """Take other ports."""
        self.ports = self._fresh_ports()

    def remember(self) -> None:
        """Write down the ports, so that clients find the same data at the same address the next time."""
        if self._kept is not None and self.ports is not None:
            try:
                remember_ports(self._kept / "ports.json", self.ports)
            except OSError as error:
                self._log.warn("{path}/ports.json cannot be written: {error}", path=self._kept, error=error)

    def leave(self) -> None:
        """Remove a temporary directory."""
        directory, self._directory = self._directory, None
        if directory is not None and self._kept is None:
            try:
                shutil.rmtree(directory)
            except OSError:
                self._log.failure("the temporary directory {path} stays", path=directory)

    def _make_directory(self) -> Path:
        if self._kept is None:
            return Path(tempfile.mkdtemp(prefix="twisted-etcd-"))
        self._kept.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (self._kept / "member").exists():
            msg = f"{self._kept} is itself the data directory of an etcd: move its content to {self._kept / 'etcd'}"
            raise OSError(msg)
        return self._kept

    def _first_ports(self) -> Ports:
        try:
            before = None if self._kept is None else remembered_ports(self._kept / "ports.json")
        except ValueError as error:
            self._log.warn("{path}/ports.json is not used, other ports are: {error}", path=self._kept, error=error)
            before = None
        if before is None:
            return self._fresh_ports()
        return Ports(self._wanted.client or before.client, self._wanted.peer or before.peer)

    def _fresh_ports(self) -> Ports:
        client, peer = free_ports(2)
        return Ports(self._wanted.client or client, self._wanted.peer or peer)
