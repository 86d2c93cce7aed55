"""
Becomes the program of a check: run as a script, in place of the program itself, by
:class:`twisted_etcd.registry.health.command.CommandCheck`.

It arranges what ``spawnProcess`` has no way to ask for: a session of the program's own, and with it a process group
that can be ended as a whole and that no signal of a terminal reaches.

It imports nothing of this package, so that it can be run with ``python -I -S``.
"""

import os
import signal
import sys

#: What shells say with it: it is there, and cannot be run.
CANNOT_BE_RUN = 126


def main(directory: str, program: str, *arguments: str) -> None:
    """
    Replace this process with the program.

    :param directory: that it runs in; the present one where it is empty.
    :param program: its path.
    :param arguments: all of them, its name first.
    """
    os.setsid()
    # Python itself ignores them, and what is ignored stays so.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        if directory:
            os.chdir(directory)
        os.execv(program, arguments)  # noqa: S606 - without a shell on purpose
    except OSError as error:
        what = f"{error.filename} cannot be entered" if error.filename == directory else f"{program} cannot be run"
        sys.stderr.write(f"{what}: {error.strerror}\n")
        sys.exit(CANNOT_BE_RUN)


if __name__ == "__main__":
    main(*sys.argv[1:])
