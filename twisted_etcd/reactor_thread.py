"""The one thread in which almost all of this may be used."""

from __future__ import annotations

from threading import get_ident

from twisted.python import threadable


def check_reactor_thread(what: str, instead: str) -> None:
    """
    Refuse what would go wrong at some time, and not every time.

    :param what: what was used.
    :param instead: what is for other threads.
    :raises RuntimeError: while a reactor runs in another thread than this one, or ran there last.
    """
    if threadable.ioThread is not None and threadable.ioThread != get_ident():
        msg = f"{what} was used outside the reactor's thread: use {instead} there"
        raise RuntimeError(msg)
