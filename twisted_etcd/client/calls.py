"""What every method that asks etcd for something goes through: is it asked well, in the right thread, in time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail

from twisted_etcd.client.kv import is_time
from twisted_etcd.errors import InvalidSettings, ServiceStopped
from twisted_etcd.gateway.endpoints import Endpoint, parse_endpoint
from twisted_etcd.gateway.gateway import Gateway
from twisted_etcd.reactor_thread import check_reactor_thread
from twisted_etcd.schema.common import Message
from twisted_etcd.schema.rpcs import RPC, Stream

RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT", bound=Message)

#: For other threads.
INSTEAD = "blockingCallFromThread of twisted.internet.threads, or a node's from_thread,"


class Calls:
    """
    The calls of one client.

    :param default_scheme: what an endpoint without a scheme means.
    :param stopped: whether the client was stopped.
    """

    def __init__(self, gateway: Gateway, default_scheme: str, stopped: Callable[[], bool]) -> None:
        self.gateway = gateway
        self.stopped = stopped
        self._default_scheme = default_scheme

    def call(
        self,
        rpc: RPC[RequestT, ResponseT],
        request: RequestT,
        *,
        timeout: float | None = None,
        deadline: float | None = None,
        endpoint: str | None = None,
    ) -> Deferred[ResponseT]:
        """
        See :meth:`twisted_etcd.client.client.EtcdClient.call`.

        :param deadline: when the time is over, by the reactor's clock, where some of it has passed already.
        """
        if not isinstance(rpc, RPC) or type(request) is not rpc.request or rpc.stream is not Stream.NONE:
            raise _not_for(rpc, request)
        member = self.member_at(endpoint)
        if not self.may_ask(rpc, timeout):
            return fail(stopped_before(rpc))
        return self.gateway.unary(rpc, request, timeout=timeout, deadline=deadline, endpoint=member)

    def may_ask(self, rpc: RPC[Any, Any], timeout: float | None) -> bool:
        """
        False where the client was stopped.

        :raises ValueError: for a timeout that is not more than 0.
        :raises RuntimeError: in another thread than the reactor's.
        """
        if timeout is not None:
            check_timeout(timeout)
        check_reactor_thread(f"EtcdClient, for {rpc.name},", INSTEAD)
        return not self.stopped()

    def member_at(self, endpoint: str | None) -> Endpoint | None:
        """
        The one endpoint that a caller names; None where none is named.

        :raises TypeError: where it is no text.
        :raises InvalidSettings: where it is no URL of a member.
        """
        if endpoint is None:
            return None
        if not isinstance(endpoint, str):
            msg = f"endpoint must be a member's URL such as 'http://10.0.0.1:2379', not {type(endpoint).__name__}"
            raise TypeError(msg)
        if "," in endpoint:
            msg = f"endpoint is {endpoint!r}, which names several members, and the call is for one: name that one"
            raise InvalidSettings(msg)
        return parse_endpoint(endpoint, default_scheme=self._default_scheme)


def check_timeout(timeout: float | None) -> None:
    """
    None is fine, and so are finite seconds over 0.

    :raises ValueError: for other numbers.
    :raises TypeError: for what is no number.
    """
    if timeout is not None and (not is_time(timeout, "timeout") or timeout == 0):
        msg = f"timeout must be more than 0 seconds, and finite, not {timeout!r}"
        raise ValueError(msg)


def stopped_before(rpc: RPC[Any, Any]) -> ServiceStopped:
    """What a call fails with that was made too late."""
    return ServiceStopped(f"the client was stopped before {rpc.name}")


def _not_for(rpc: RPC[Any, Any], request: object) -> TypeError:
    """What is wrong with a call."""
    if not isinstance(rpc, RPC):
        return TypeError(f"the first argument of call is one of twisted_etcd.schema.rpcs, not {type(rpc).__name__}")
    if rpc.stream is not Stream.NONE:
        return TypeError(f"{rpc.name} is a stream, and call is for calls with one answer")
    return TypeError(f"{rpc.name} takes {rpc.request.__name__}, not {type(request).__name__}")
