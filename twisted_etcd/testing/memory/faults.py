"""What shall go wrong with which calls."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

from twisted_etcd.errors import EtcdError
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.rpcs import RPC

_BY_NAME = {rpc.name: rpc for rpc in rpcs.ALL}

#: A call, or its name: ``rpcs.PUT``, ``"KV.Put"``.
Call = RPC[Any, Any] | str


@dataclass(frozen=True)
class Plan:
    """
    What goes wrong with one call.

    :ivar error: what it is answered with; it is not served then.
    :ivar delay: seconds before it is looked at.
    :ivar lost: whether the connection breaks in place of the answer.
    """

    error: EtcdError | None = None
    delay: float = 0.0
    lost: bool = False


def named(call: Call) -> RPC[Any, Any]:
    """
    The call that is meant.

    :raises ValueError: for a name that none has.
    """
    if isinstance(call, RPC):
        return call
    if call not in _BY_NAME:
        msg = f"{call!r} is no call of etcd's; the names are those in twisted_etcd.schema.rpcs, such as 'KV.Put'"
        raise ValueError(msg)
    return _BY_NAME[call]


class Faults:
    """The faults that were asked for and have not happened yet."""

    def __init__(self) -> None:
        self._errors: dict[RPC[Any, Any], deque[EtcdError]] = {}
        self._lost: dict[RPC[Any, Any], int] = {}
        self._delays: dict[RPC[Any, Any], float] = {}

    def fail(self, call: Call, error: EtcdError, times: int) -> None:
        """Answer the next ones with an error."""
        self._errors.setdefault(named(call), deque()).extend([error] * times)

    def lose(self, call: Call, times: int) -> None:
        """Serve the next ones, and break the connection in place of the answer."""
        rpc = named(call)
        self._lost[rpc] = self._lost.get(rpc, 0) + times

    def delay(self, call: Call, seconds: float) -> None:
        """Let all of them wait from now on; 0 ends that."""
        self._delays[named(call)] = seconds

    def plan(self, rpc: RPC[Any, Any]) -> Plan:
        """What goes wrong with a call that has come now."""
        errors = self._errors.get(rpc)
        error = errors.popleft() if errors else None
        lost = error is None and self._lost.get(rpc, 0) > 0
        if lost:
            self._lost[rpc] -= 1
        return Plan(error, self._delays.get(rpc, 0.0), lost)
