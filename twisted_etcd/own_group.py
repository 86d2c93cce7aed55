"""
Becomes a command: run as a script, in place of the command itself, by :class:`twisted_etcd.commands.Command`.

Two things must be arranged in the child between fork and exec, where ``spawnProcess`` lets nobody in:

- a session and process group of its own, so that all that the command started can be ended with it, and Ctrl-C in a
  terminal reaches the program alone, which ends its commands by itself;
- on Linux, death with its parent, so that a ``kill -9`` of the program leaves no command behind that nobody times.

It imports nothing of this package, so that it can be run with ``python -I -S``.
"""

import errno
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
#: What shells say where there is no such program, and where it cannot be run.
_NOT_FOUND, _NOT_RUN = 127, 126


def main(parent: int, *arguments: str) -> None:
    """
    Replace this process with a command, which is looked for on ``PATH``.

    :param parent: the process whose death is the command's.
    """
    os.setsid()
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - nothing else needs it

        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            sys.exit("the program that started this command has ended")
    # Python ignores these, and what is ignored stays so: a pipe that is closed would not end the command.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(arguments[0], arguments)  # noqa: S606 - without a shell on purpose
    except OSError as error:
        sys.stderr.write(f"{arguments[0]} cannot be run: {error.strerror}\n")
        sys.exit(_NOT_FOUND if error.errno == errno.ENOENT else _NOT_RUN)


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
