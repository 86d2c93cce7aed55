"""What a process can tell of itself, and what is made of many figures."""

from __future__ import annotations

import math
import os
import resource
import time
from collections.abc import Sequence
from pathlib import Path

MILLISECOND = 1e-3
MICROSECOND = 1e-6
#: How Linux writes that a connection is established.
_ESTABLISHED = "01"


def percentile(values: Sequence[float], share: float) -> float:
    """
    The smallest of the values that so large a share of them does not exceed.

    :param values: at least one, in any order.
    :param share: over 0 and up to 1.
    """
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def median(values: Sequence[float]) -> float:
    """
    The one in the middle, or the mean of the two there.

    :param values: at least one, in any order.
    """
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def cpu_seconds() -> float:
    """The processor time that this process has used, its threads' and the kernel's on its behalf."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class Stopwatch:
    """Measures from when it is made until :meth:`stop`: ``seconds`` of time and ``cpu`` of this process."""

    def __init__(self) -> None:
        self.cpu = cpu_seconds()
        self.seconds = time.perf_counter()

    def stop(self) -> Stopwatch:
        """End the measurement."""
        self.seconds = time.perf_counter() - self.seconds
        self.cpu = cpu_seconds() - self.cpu
        return self


def delay_figures(sent: Sequence[float], arrived: Sequence[float]) -> dict[str, float]:
    """
    How long events took, by the times of two processes on one machine, whose clock is the same: ``p50`` and ``p99`` in
    ms. The first tenth of them is left out.
    """
    first = len(sent) // 10
    delays = [there - here for here, there in zip(sent[first:], arrived[first:], strict=True)]
    return {"p50": percentile(delays, 0.5) / MILLISECOND, "p99": percentile(delays, 0.99) / MILLISECOND}


def latency_figures(latencies: Sequence[float], used: Stopwatch) -> dict[str, float]:
    """What a closed loop has shown: ``p50`` and ``p99`` in ms, ``rate`` a second, ``cpu`` in µs an operation."""
    return {
        "p50": percentile(latencies, 0.5) / MILLISECOND,
        "p99": percentile(latencies, 0.99) / MILLISECOND,
        "rate": len(latencies) / used.seconds,
        "cpu": used.cpu / len(latencies) / MICROSECOND,
    }


def resident_bytes() -> int | None:
    """The memory that this process has, as far as it is in RAM; None where the system does not tell as Linux does."""
    try:
        pages = Path("/proc/self/statm").read_text("ascii").split()[1]
    except OSError:
        return None
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def connections_to(port: int) -> int | None:
    """How many TCP connections this process has to that port; None where the system does not tell as Linux does."""
    try:
        own = {str(entry.readlink()) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()}
        tables = [Path(f"/proc/self/net/{name}") for name in ("tcp", "tcp6")]
        lines = [line for table in tables if table.exists() for line in table.read_text("ascii").splitlines()[1:]]
    except OSError:
        return None
    return established(lines, port, own)


def established(lines: Sequence[str], port: int, own: set[str]) -> int:
    """
    How many connections to a port there are.

    :param lines: of Linux's tables of TCP sockets, without their headings.
    :param own: the sockets that count, as ``socket:[inode]``.
    """
    found = 0
    for line in lines:
        _, _, remote, state, *_, inode = line.split()[:10]
        if state == _ESTABLISHED and int(remote.rpartition(":")[2], 16) == port and f"socket:[{inode}]" in own:
            found += 1
    return found
