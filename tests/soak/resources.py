"""Whether a long run takes more of anything than a short one."""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

_MIB = 1024 * 1024
#: So many samples are needed to say anything.
_FEWEST = 9
#: By how much the last third may be above the first one.
_MORE_MEMORY = 24.0
_MORE_SOCKETS = 64
_MORE_CALLS = 64


class Sample(msgspec.Struct, frozen=True):
    """
    What the process has.

    :ivar memory: MiB resident.
    :ivar sockets: open file descriptors.
    :ivar calls: delayed calls in the reactor.
    """

    memory: float
    sockets: int
    calls: int


def sample(reactor: Any) -> Sample:  # noqa: ANN401 - any of Twisted's
    """What it has now, garbage aside."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return Sample(
        memory=pages * os.sysconf("SC_PAGE_SIZE") / _MIB,
        sockets=sum(1 for _ in Path("/proc/self/fd").iterdir()),
        calls=len(reactor.getDelayedCalls()),
    )


def growth(samples: Sequence[Sample]) -> tuple[Sample, Sample] | None:
    """The medians of the first and the last third, behind a warm-up; None where there are too few samples."""
    if len(samples) < _FEWEST:
        return None
    third = len(samples) // 3
    return _median(samples[1 : third + 1]), _median(samples[-third:])


def _median(samples: Sequence[Sample]) -> Sample:
    return Sample(
        memory=median(each.memory for each in samples),
        sockets=int(median(each.sockets for each in samples)),
        calls=int(median(each.calls for each in samples)),
    )


def what_grew(samples: Sequence[Sample]) -> list[str]:
    """What is not flat, in words."""
    found = growth(samples)
    if found is None:
        return []
    first, last = found
    return [
        f"{what} went from {before:g} to {after:g}"
        for what, before, after, more in (
            ("memory in MiB", first.memory, last.memory, _MORE_MEMORY),
            ("open files", first.sockets, last.sockets, _MORE_SOCKETS),
            ("delayed calls", first.calls, last.calls, _MORE_CALLS),
        )
        if after > before + more
    ]
