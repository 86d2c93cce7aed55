"""
Becomes etcd: run as a script, in place of etcd itself, by :class:`twisted_etcd.embedded.process.EmbeddedEtcd`.

Two things must be arranged in the child between fork and exec, where ``spawnProcess`` lets nobody in:

- a process group of its own, so that Ctrl-C in a terminal reaches the program, which stops etcd last, and not etcd;
- on Linux, death with its parent, so that a ``kill -9`` of the program leaves no etcd behind that holds its data.

It imports nothing of this package, so that it can be run with ``python -I -S``.
"""

import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(parent: int, program: str, *arguments: str) -> None:
    """
    Replace this process with etcd.

    :param parent: the process whose death is etcd's.
    """
    os.setpgid(0, 0)
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - nothing else needs it

        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            sys.exit("the program that started this etcd has ended")
    try:
        os.execv(program, [program, *arguments])  # noqa: S606 - without a shell on purpose
    except OSError as error:
        sys.exit(f"{program} cannot be run: {error.strerror}")


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
