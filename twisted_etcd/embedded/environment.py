"""The environment variables of an etcd of our own."""

from __future__ import annotations

import platform
from collections.abc import Mapping

#: Go's names for the machines on which older versions of etcd refuse to run unless told to.
_GO_ARCHITECTURES = {
    "aarch64": "arm64",
    "arm64": "arm64",
    "armv6l": "arm",
    "armv7l": "arm",
    "i386": "386",
    "i686": "386",
    "ppc64le": "ppc64le",
    "riscv64": "riscv64",
    "s390x": "s390x",
}


def etcd_environment(environ: Mapping[str, str], machine: str | None = None) -> dict[str, str]:
    """
    The environment for an etcd.

    It is without ``ETCD_*``, which would change its settings, and has ``ETCD_UNSUPPORTED_ARCH`` on machines where
    older versions refuse to run without.

    :param machine: as ``platform.machine()`` says it, which is asked unless it is given.
    """
    clean = {name: value for name, value in environ.items() if not name.startswith("ETCD_")}
    architecture = _GO_ARCHITECTURES.get(platform.machine() if machine is None else machine)
    if architecture is not None:
        clean["ETCD_UNSUPPORTED_ARCH"] = architecture
    return clean
