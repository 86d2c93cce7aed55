"""How a member is, by its own account: whether it answers at all, and whether it has a leader."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from twisted_etcd.errors import EtcdError, NotEtcd
from twisted_etcd.gateway.answers import read_reply
from twisted_etcd.gateway.endpoints import Endpoint
from twisted_etcd.gateway.endpointset import EndpointSet
from twisted_etcd.gateway.exchange import ExchangeFailed, Reach, Reply
from twisted_etcd.moment import Moment
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.maintenance import StatusRequest, StatusResponse

_BODY = rpcs.STATUS.encode(StatusRequest())


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a checkup found.

    :ivar trouble: why requests should go elsewhere, in words; empty where they need not.
    :ivar stranger: whether there is no etcd gateway at this address, so that waiting does not help.
    :ivar version: of the etcd there, where it said so.
    :ivar member_id: the member that answered; 0 where none did.
    """

    trouble: str = ""
    stranger: bool = False
    version: str = ""
    member_id: int = 0


_STOPPED = Condition(trouble="the client was stopped")


class Checkups:
    """
    Asks members how they are (``Maintenance.Status``), and notes it in the set of endpoints.

    One question is under way to a member at a time, shared by all who want to know. It needs no token, and neither a
    leader nor its disk to be answered, so a member that does not answer it is dead, hung or cut off.

    :param post: sends a body to a path of an endpoint.
    :param timeout: seconds after which a member counts as hung.
    """

    def __init__(
        self,
        post: Callable[[Endpoint, str, bytes], Deferred[Reply]],
        endpoints: EndpointSet,
        clock: IReactorTime,
        timeout: float,
    ) -> None:
        self._post = post
        self._endpoints = endpoints
        self._clock = clock
        self._timeout = timeout
        #: For each question under way, those who wait for its answer.
        self._asked: dict[Endpoint, Moment[Condition]] = {}
        self._posting: set[Deferred[Reply]] = set()
        self._stopped = False

    def of(self, endpoint: Endpoint) -> Deferred[Condition]:
        """How this member is: fires within the timeout."""
        if self._stopped:
            return succeed(_STOPPED)
        asked = self._asked.get(endpoint)
        if asked is None:
            asked = self._asked[endpoint] = Moment()
            Deferred.fromCoroutine(self._check(endpoint)).addCallbacks(
                self._found, self._broke, callbackArgs=(endpoint,), errbackArgs=(endpoint,)
            )
        return asked.wait()

    def stop(self) -> None:
        """End the questions under way, and ask no more; what their connections are at is left to their owner."""
        self._stopped = True
        for posting in tuple(self._posting):
            posting.cancel()

    async def _check(self, endpoint: Endpoint) -> Condition:
        posting = self._post(endpoint, rpcs.STATUS.path, _BODY)
        self._posting.add(posting)
        try:
            reply = await posting.addTimeout(self._timeout, self._clock, onTimeoutCancel=_silent)
            status = read_reply(rpcs.STATUS, reply, str(endpoint))
        except ExchangeFailed as failed:
            return Condition(trouble=failed.why, stranger=failed.obstacle is not None)
        except NotEtcd as stranger:
            return Condition(trouble=stranger.tried[str(endpoint)], stranger=True)
        except EtcdError as error:
            # One that wants a token for this lives.
            return Condition(trouble=str(error) if error.concerns_member else "")
        finally:
            self._posting.discard(posting)
        return Condition(trouble=_trouble(status), version=status.version, member_id=status.header.member_id)

    def _found(self, condition: Condition, endpoint: Endpoint) -> None:
        if self._stopped:
            # It was not the member that ended the question.
            condition = _STOPPED
        elif condition.trouble:
            self._endpoints.failed(endpoint, condition.trouble)
        else:
            self._endpoints.served(endpoint)
        self._asked.pop(endpoint).fire(condition)

    def _broke(self, failure: Failure, endpoint: Endpoint) -> None:
        self._asked.pop(endpoint).fail(failure)


def _silent(_result: object, seconds: float) -> Reply:
    why = f"it did not answer within {seconds:g} s how it is"
    raise ExchangeFailed(why, Reach.MAYBE_SENT)


def _trouble(status: StatusResponse) -> str:
    if status.isLearner:
        return "it is a learner, which serves nobody"
    return "" if status.leader else "it has no leader"
