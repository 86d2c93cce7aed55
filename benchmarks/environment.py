"""What a run was made with: the machine, the versions, the settings."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from benchmarks.cases import PEERS, Case

_GIBIBYTE = 1024**3


def version_of(distribution: str) -> str | None:
    """The version that is installed; None where none is."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def installed_peers() -> list[str]:
    """The peers that can be measured here."""
    return [peer for peer in PEERS if version_of(peer) is not None]


def describe(etcd_version: str, cases: Sequence[Case], *, rounds: int, quick: bool, fsync: bool) -> list[str]:
    """The date, the machine, the versions and the settings, in sentences."""
    versions = [f"{name} {version_of(name)}" for name in ("twisted-etcd", "Twisted", *installed_peers())]
    lines = [
        f"Measured on {time.strftime('%Y-%m-%d')}, {_machine()}.",
        f"{platform.python_implementation()} {platform.python_version()}, etcd {etcd_version}, {', '.join(versions)}.",
        f"Medians of {rounds} round{'s' if rounds > 1 else ''}{_once(cases, rounds)}, clients in turns.",
        f"All on one machine, over loopback, etcd {'with' if fsync else 'without'} fsync.",
    ]
    smaller = [f"{case.name} with {text}" for case in cases if quick and (text := case.smaller())]
    if smaller:
        lines.append(f"A quick run: short spans, and {'; '.join(smaller)}.")
    return lines


def _once(cases: Sequence[Case], rounds: int) -> str:
    """The cases that have one round where others have several."""
    once = [case.name for case in cases if rounds > 1 and case.rounds == 1]
    return f", {' and '.join(once)} once" if once else ""


def _machine() -> str:
    cores = os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIBIBYTE
    return (
        f"{cores} core{'s' if cores > 1 else ''} of {_processor()}, {memory:.0f} GiB,"
        f" {platform.system()} {platform.release().split('-')[0]}"
    )


def _processor() -> str:
    """The model of the processor, where the system tells it as Linux does, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.machine()


def environment_file(rows_file: Path) -> Path:
    """Where the environment of a run is kept, beside its rows."""
    return rows_file.with_suffix(".environment.json")


def write_environment(file: Path, lines: Sequence[str]) -> None:
    """Keep it."""
    file.write_text(json.dumps(lines, ensure_ascii=False, indent=1) + "\n", "utf-8")


def read_environment(file: Path) -> list[str]:
    """What was kept; nothing where there is no such file."""
    if not file.exists():
        return []
    lines: list[str] = json.loads(file.read_text("utf-8"))
    return lines
