"""
Becomes a command: run as a script, in place of the command itself, by :class:`twisted_etcd.commands.Command`; and, in
place of etcd, by :class:`twisted_etcd.embedded.process.EmbeddedEtcd`.

Three things must be arranged in the child between fork and exec, where ``spawnProcess`` lets nobody in:

- a session and process group of its own, so that all that the command started can be ended with it, and Ctrl-C in a
  terminal reaches the program alone, which ends its commands by itself, and etcd last;
- its directory: where ``spawnProcess`` cannot enter it, the command seems to have failed by itself, with exit status 1;
- on Linux, death with its parent, so that a ``kill -9`` of the program leaves no command behind that nobody times, and
  no etcd that holds its data.

It imports nothing of this package, so that it can be run with ``python -I -S``.
"""

import errno
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
#: What shells say where there is no such program, and where it cannot be run.
_NOT_FOUND, _NOT_RUN = 127, 126


def main(parent: int, directory: str, *arguments: str) -> None:
    """
    Replace this process with a command, which is looked for on ``PATH``.

    :param parent: the process whose death is the command's.
    :param directory: where it runs; the present one where it is empty.
    """
    os.setsid()
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - nothing else needs it

        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            sys.exit(f"the program that started {arguments[0]} has ended")
    # Python ignores these, and what is ignored stays so: a pipe that is closed would not end the command.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        if directory:
            os.chdir(directory)
    except OSError as error:
        sys.stderr.write(f"{directory} cannot be entered: {error.strerror}\n")
        sys.exit(_NOT_RUN)
    try:
        os.execvp(arguments[0], arguments)  # noqa: S606 - without a shell on purpose
    except OSError as error:
        sys.stderr.write(f"{arguments[0]} cannot be run: {error.strerror}\n")
        # It can be there, and what it is a script for is not.
        is_there = error.errno != errno.ENOENT or os.path.exists(arguments[0])  # noqa: PTH110 - pathlib loads slowly
        sys.exit(_NOT_RUN if is_there else _NOT_FOUND)


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
