"""What makes ``etcd:`` known to Twisted."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from typing import Any

import pytest
from twisted.internet.interfaces import IStreamClientEndpointStringParserWithReactor, IStreamServerEndpointStringParser
from twisted.plugin import getPlugins
from zope.interface import Interface
from zope.interface.verify import verifyObject

#: What the plugin must not load for those who only look which plugins there are, or want another one.
HEAVY = ("twisted_etcd", "treq", "msgspec", "twisted.web", "twisted.internet.reactor")


def loaded_by(code: str) -> set[str]:
    """Which of the heavy ones a fresh interpreter has after that."""
    check = f"import sys\n{code}\nprint(*(each for each in {HEAVY!r} if each in sys.modules))"
    answer = subprocess.run([sys.executable, "-c", check], check=True, capture_output=True, text=True, timeout=60)
    return set(answer.stdout.split())


INTERFACES = (IStreamClientEndpointStringParserWithReactor, IStreamServerEndpointStringParser)


def found(interface: type[Interface]) -> list[Any]:
    plugins: Iterable[Any] = getPlugins(interface)
    return [plugin for plugin in plugins if plugin.prefix == "etcd"]


@pytest.mark.parametrize("interface", INTERFACES)
def test_it_is_found_once_and_is_what_twisted_asks_for(interface: type[Interface]) -> None:
    [plugin] = found(interface)
    verifyObject(interface, plugin)


def test_it_loads_nothing_until_a_string_says_etcd() -> None:
    assert loaded_by("import twisted.plugins.twisted_etcd_endpoints") == set()


def test_another_ones_string_does_not_load_it() -> None:
    code = (
        "from twisted.internet import reactor\n"
        "from twisted.internet.endpoints import clientFromString\n"
        "clientFromString(reactor, 'tls:example.org:443')"
    )
    assert loaded_by(code) == {"twisted.internet.reactor"}


def test_all_strings_of_a_process_go_to_one_place() -> None:
    [client], [server] = (found(interface) for interface in INTERFACES)
    assert client.strings is server.strings
