"""Endpoints from etcd's own list of members."""

from __future__ import annotations

from collections.abc import Container, Sequence
from ipaddress import ip_address

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from twisted_etcd.errors import InvalidSettings, ServiceStopped, TwistedEtcdError, Unavailable
from twisted_etcd.gateway.checkups import Condition
from twisted_etcd.gateway.endpoints import Endpoint, parse_endpoint
from twisted_etcd.gateway.endpointset import EndpointStatus
from twisted_etcd.gateway.gateway import Gateway
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.cluster import Member, MemberListRequest


def client_urls(members: Sequence[Member]) -> tuple[str, ...]:
    """The client URLs of the members that serve clients: those that were started, learners aside."""
    serving = [member for member in members if member.name and not member.isLearner]
    return tuple(dict.fromkeys(url for member in serving for url in member.clientURLs))


class Membership:
    """
    Keeps a gateway's endpoints as the cluster's members are.

    :param interval: seconds between two looks at the list of members; 0 for none but those that are asked for.
    """

    _log = Logger()

    def __init__(self, gateway: Gateway, clock: IReactorTime, interval: float) -> None:
        self._gateway = gateway
        self._clock = clock
        self._interval = interval
        self._timer: IDelayedCall | None = None
        self._stopped = False
        self._wind()

    def _wind(self) -> None:
        if self._interval and not self._stopped:
            self._timer = self._clock.callLater(self._interval, self._look)

    def _look(self) -> None:
        self._timer = None
        Deferred.fromCoroutine(self._follow())

    async def _follow(self) -> None:
        try:
            await self.sync(None)
        except ServiceStopped:
            return
        except TwistedEtcdError as error:
            self._log.warn("the list of members cannot be had, and is asked for again: {why}", why=str(error))
        self._wind()

    def stop(self) -> None:
        """Look no more."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def sync(self, timeout: float | None) -> tuple[EndpointStatus, ...]:
        """See :meth:`twisted_etcd.client.client.EtcdClient.sync`."""
        self._raise_if_stopped()
        response = await self._gateway.unary(rpcs.MEMBER_LIST, MemberListRequest(), timeout=timeout)
        refused: dict[str, str] = {}
        usable = [self._usable(url, refused) for url in client_urls(response.members)]
        listed = tuple(dict.fromkeys(endpoint for endpoint in usable if endpoint is not None))
        new = [endpoint for endpoint in listed if endpoint not in self._gateway.endpoints]
        conditions = await gatherResults([self._gateway.checkup(endpoint) for endpoint in new])
        self._raise_if_stopped()
        found = dict(zip(new, conditions, strict=True))
        ids = {member.ID for member in response.members}
        for endpoint, condition in found.items():
            why = condition.trouble if condition.stranger else _of_another_cluster(condition, ids)
            if why:
                refused[str(endpoint)] = why
        kept = [endpoint for endpoint in listed if str(endpoint) not in refused]
        for url, why in refused.items():
            self._log.warn("the address {url} of a member is not used: {why}", url=url, why=why)
        # Addresses can be good inside the cluster's own network alone.
        if all(endpoint in found and found[endpoint].trouble for endpoint in kept):
            msg = "no member has an address that can be used; the endpoints stay as they are"
            raise Unavailable(msg, refused | {str(endpoint): found[endpoint].trouble for endpoint in kept})
        self._gateway.use_endpoints(kept)
        for endpoint, condition in found.items():
            if condition.trouble:
                self._gateway.failed(endpoint, condition.trouble)
            else:
                self._gateway.served(endpoint)
        return self._gateway.endpoint_statuses

    def _raise_if_stopped(self) -> None:
        if self._stopped:
            msg = "the client was stopped before it knew the cluster's members"
            raise ServiceStopped(msg)

    @staticmethod
    def _usable(url: str, refused: dict[str, str]) -> Endpoint | None:
        try:
            endpoint = parse_endpoint(url)
        except InvalidSettings as error:
            refused[url] = str(error)
            return None
        if _is_unspecified(endpoint.host):
            refused[url] = "it is where the member listens, and no address; set etcd's --advertise-client-urls"
            return None
        return endpoint


def _of_another_cluster(condition: Condition, ids: Container[int]) -> str:
    if not condition.member_id or condition.member_id in ids:
        return ""
    return f"member {condition.member_id:x} answers there, which is none of this cluster's"


def _is_unspecified(host: str) -> bool:
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False
