"""
Runs the daemon as the README says and sees whether it serves an etcd, and whether it ends when it is told to.

Usage: ``smoke.py DIRECTORY COMMAND``, the command being run by the shell in that directory.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

#: Seconds for all of it, an installation from the package index among them.
LIMIT = 240
ADDRESS = re.compile(r"http://(?:127\.0\.0\.1|localhost|\[::1\]):\d+")
TROUBLE = re.compile(r"Traceback|Unhandled|CRITICAL")


def etcd_version_at(address: str) -> str | None:
    """The version of the etcd that answers there; nothing where none does."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{address}/version", timeout=10) as answer:
            version: str = json.load(answer)["etcdserver"]
            return version
    except (OSError, urllib.error.URLError, ValueError, KeyError):
        return None


def serving_address(daemon: subprocess.Popen[str], said: list[str]) -> str | None:
    """The first address in the daemon's output where an etcd answers; nothing where the output ends before that."""
    assert daemon.stdout is not None
    for line in daemon.stdout:
        said.append(line)
        sys.stdout.write(line)
        for address in ADDRESS.findall(line):
            version = etcd_version_at(address)
            if version is not None:
                print(f"smoke: etcd {version} answers at {address}")
                return str(address)
    return None


def complaints(directory: Path, command: str) -> list[str]:
    """What went wrong, a line for each; nothing where all went well."""
    began = time.monotonic()
    daemon = subprocess.Popen(
        ["bash", "-c", command],
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert daemon.stdout is not None
    timer = threading.Timer(LIMIT, os.killpg, (daemon.pid, signal.SIGKILL))
    timer.start()
    said: list[str] = []
    pid_file = directory / "twistd.pid"
    try:
        address = serving_address(daemon, said)
        if address is None:
            return [f"no etcd answered, after {time.monotonic() - began:.0f} s"]
        print(f"smoke: up {time.monotonic() - began:.0f} s after the command was typed; SIGTERM")
        os.kill(int(pid_file.read_text("utf-8")), signal.SIGTERM)
        for line in daemon.stdout:
            said.append(line)
            sys.stdout.write(line)
        status = daemon.wait()
    finally:
        timer.cancel()
        if daemon.poll() is None:
            os.killpg(daemon.pid, signal.SIGKILL)
        daemon.stdout.close()
        daemon.wait()
    found = [f"in the output: {line.strip()}" for line in said if TROUBLE.search(line)]
    # twistd ends by the signal that stopped it, and bash reports that as 128 + 15.
    if status not in {0, 128 + signal.SIGTERM, -signal.SIGTERM}:
        found.append(f"the daemon ended with exit status {status}")
    if pid_file.exists():
        found.append(f"the daemon left {pid_file} behind")
    if etcd_version_at(address) is not None:
        found.append(f"an etcd still answers at {address}")
    return found


def main() -> int:
    """Say what was found; the exit status is 0 where nothing was wrong."""
    directory, command = sys.argv[1:]
    print(f"smoke: {command}", flush=True)
    found = complaints(Path(directory), command)
    for complaint in found:
        print(f"smoke: {complaint}")
    print("smoke: failed" if found else "smoke: it stopped cleanly")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
