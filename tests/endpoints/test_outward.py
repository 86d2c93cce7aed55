"""The address by which others reach this machine."""

from __future__ import annotations

import socket
from typing import Any, cast

import pytest
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred

from tests.messaging.common import PENDING, failure_of, peek, result_of
from twisted_etcd.endpoints.outward import is_loopback, is_specific, outward_address
from twisted_etcd.errors import InvalidSettings, Unavailable
from twisted_etcd.gateway.endpoints import parse_endpoints

FOUR, SIX = int(socket.AF_INET), int(socket.AF_INET6)
#: From which address of this machine others are reached.
WAYS = {"10.9.9.9": "10.0.0.7", "10.8.8.8": "10.0.0.8", "127.0.0.1": "127.0.0.1", "fd00::9": "fd00::7", "::1": "::1"}


class Names:
    """A resolver that answers when the test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, str]] = []

    def resolveHostName(self, receiver: Any, host: str, *_: object) -> None:  # noqa: ANN401 - as Twisted has it
        receiver.resolutionBegan(None)
        self.asked.append((receiver, host))

    def answer(self, *addresses: object) -> None:
        receiver, _ = self.asked.pop(0)
        for address in addresses:
            receiver.addressResolved(address)
        receiver.resolutionComplete()


class Machine:
    """What is asked of a reactor."""

    def __init__(self) -> None:
        self.nameResolver = self.names = Names()


def outward(etcd: str, families: tuple[int, ...] = (FOUR,), machine: Machine | None = None) -> Deferred[str]:
    def towards(address: str, _port: int) -> str | None:
        return WAYS.get(address)

    there = parse_endpoints(etcd)
    return Deferred.fromCoroutine(outward_address(machine or Machine(), there, families, towards))


@pytest.mark.parametrize(
    ("etcd", "families", "address"),
    [
        ("10.9.9.9", (FOUR,), "10.0.0.7"),
        ("10.8.8.8,10.9.9.9", (FOUR,), "10.0.0.8"),
        ("10.1.1.1,10.9.9.9", (FOUR,), "10.0.0.7"),
        # Loopback only where etcd is reached by nothing else.
        ("127.0.0.1,10.9.9.9", (FOUR,), "10.0.0.7"),
        ("127.0.0.1", (FOUR,), "127.0.0.1"),
        ("[::1]", (SIX, FOUR), "::1"),
        ("10.9.9.9,[fd00::9]", (SIX, FOUR), "fd00::7"),
        ("10.9.9.9", (SIX, FOUR), "10.0.0.7"),
        ("[fd00::9],10.9.9.9", (FOUR,), "10.0.0.7"),
    ],
)
def test_it_is_the_one_by_which_etcd_is_reached(etcd: str, families: tuple[int, ...], address: str) -> None:
    assert result_of(outward(etcd, families)) == address


def test_another_version_of_ip_is_an_error_that_says_what_to_give() -> None:
    error = failure_of(outward("[fd00::9]"), InvalidSettings)
    assert "etcd is reached from fd00::7" in str(error)
    assert "give address=" in str(error)


def test_without_a_way_it_may_be_known_later() -> None:
    assert "there is no way to etcd" in str(failure_of(outward("10.1.1.1"), Unavailable))


def test_names_are_resolved() -> None:
    machine = Machine()
    found = outward("one.example,two.example", machine=machine)
    assert peek(found) is PENDING
    assert machine.names.asked[0][1] == "one.example"
    machine.names.answer()
    machine.names.answer(IPv6Address("TCP", "fd00::9", 0), IPv4Address("TCP", "10.9.9.9", 0))
    assert result_of(found) == "10.0.0.7"


def test_names_that_nobody_knows_may_be_known_later() -> None:
    machine = Machine()
    found = outward("one.example", machine=machine)
    machine.names.answer()
    assert "the names of etcd's endpoints are not known" in str(failure_of(found, Unavailable))


def test_the_machine_itself_knows_its_way_to_loopback() -> None:
    finding = Deferred.fromCoroutine(outward_address(Machine(), parse_endpoints("127.0.0.1:1"), (FOUR,)))
    assert result_of(finding) == "127.0.0.1"


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("::1", True), ("LocalHost", True), ("a.localhost", True), ("10.0.0.1", False), ("a", False)],
)
def test_what_is_loopback(host: str, *, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("host", "specific"),
    [("10.0.0.1", True), ("fe80::1%eth0", True), ("0.0.0.0", False), ("::", False), ("", False)],  # noqa: S104 - one that is none
)
def test_what_is_one_interface(host: str, *, specific: bool) -> None:
    assert is_specific(host) is specific


def test_given_up_a_name_that_comes_late_is_nothing() -> None:
    machine = Machine()
    found = outward("one.example", machine=machine)
    found.addErrback(lambda _: None)
    found.cancel()
    cast("Any", machine.names).answer(IPv4Address("TCP", "10.9.9.9", 0))
