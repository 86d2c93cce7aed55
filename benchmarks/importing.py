"""
How long an import takes, in a process of its own: ``python -m benchmarks.importing CLIENT``.

It speaks as :mod:`benchmarks.worker` does, and takes one command. All of it is imported once before, in another
process, so that its bytecode is there. ``total`` is the time from a bare interpreter on,
``beyond`` what comes on top of the loop that such a program has imported anyway; both in ms.
"""

import importlib
import os
import subprocess
import sys
import time

#: What a client's program has imported, and what it imports then.
IMPORTS = {
    "ours": (("twisted.internet.reactor", "treq"), "twisted_etcd"),
    "aetcd": (("asyncio",), "aetcd"),
    "etcd-client-py": (("asyncio",), "etcd_client"),
    "etcd3gw": ((), "etcd3gw"),
}


def main() -> None:
    """Import, and tell how long it took."""
    sys.stdin.readline()
    before, module = IMPORTS[sys.argv[1]]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    all_of_it = f"import {', '.join((*before, module))}"
    subprocess.run([sys.executable, "-c", all_of_it], check=True, env=environment, stdout=subprocess.DEVNULL)  # noqa: S603 - our own
    began = time.perf_counter()
    for name in before:
        importlib.import_module(name)
    begun = time.perf_counter()
    importlib.import_module(module)
    ended = time.perf_counter()
    total, beyond = (ended - began) * 1000, (ended - begun) * 1000
    os.write(1, f'{{"figures": {{"total": {total:.3f}, "beyond": {beyond:.3f}}}}}\n'.encode())


if __name__ == "__main__":
    main()
