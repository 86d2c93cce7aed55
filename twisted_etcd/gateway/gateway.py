"""The one face of this room: requests and streams to an etcd cluster."""

from __future__ import annotations

from collections.abc import Callable, Container, Coroutine, Sequence
from typing import Any, TypeVar, cast

from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore, fail
from twisted.internet.interfaces import IReactorCore, IReactorTCP, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import INTERNAL_SERVER_ERROR
from twisted.web.iweb import IAgent

from twisted_etcd.errors import (
    AuthNotEnabled,
    EtcdError,
    NotEtcd,
    ServiceStopped,
    TwistedEtcdError,
    Unavailable,
)
from twisted_etcd.gateway.agent import PooledAgent
from twisted_etcd.gateway.answers import read_error, read_replies, read_reply, stranger
from twisted_etcd.gateway.checkups import Checkups, Condition
from twisted_etcd.gateway.connections import Connections
from twisted_etcd.gateway.endpoints import Endpoint
from twisted_etcd.gateway.endpointset import EndpointSet, EndpointStatus
from twisted_etcd.gateway.exchange import Exchange, Reply, explain
from twisted_etcd.gateway.httprequest import SentHeaders
from twisted_etcd.gateway.poststream import PostStream, open_post_stream
from twisted_etcd.gateway.stream import StreamMalformed, StreamReceiver, StreamRefused
from twisted_etcd.gateway.tls import TLSSettings, TLSTrust
from twisted_etcd.gateway.tokens import Tokens
from twisted_etcd.gateway.unary import Route, UnaryCall
from twisted_etcd.gateway.websocket import WebSocket, open_websocket
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.auth import AuthenticateRequest
from twisted_etcd.schema.common import Message
from twisted_etcd.schema.rpcs import RPC

RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT", bound=Message)
AnyT = TypeVar("AnyT")

#: Seconds that a TCP connection may take to come about, unless told otherwise.
CONNECT_TIMEOUT = 3.0
#: Seconds that a request may take, unless told otherwise.
REQUEST_TIMEOUT = 5.0
#: Connections to one endpoint that requests may use at a time; the others wait their turn within their deadline.
MAX_CONNECTIONS = 256
#: How much of a request's time may pass before it has a token.
_TOKEN_SHARE = 0.8
#: How much of a request's time a member may take to say how it is.
_CHECKUP_SHARE = 0.3
#: The longest unary answer that is taken, in bytes. etcd's own answers are bounded by the size of its database.
_MAX_ANSWER = 1 << 30


class IGatewayReactor(IReactorCore, IReactorTCP, IReactorTime):
    """What this room uses of the reactor."""


class Credentials:
    """
    A user and password of etcd's own authentication. Shown nowhere.

    :param password: etcd's word for the secret of a user; not kept in any text.
    """

    def __init__(self, username: str, password: str) -> None:
        self.username = username
        self.password = password

    def __repr__(self) -> str:
        return f"Credentials({self.username!r}, (password))"


class Gateway:
    """
    An etcd cluster behind its v3 JSON gateway.

    :param endpoints: the members to talk to, tried in turn.
    :param credentials: sent once for a token; None where etcd asks for none.
    :param connect_timeout: seconds that a connection may take to come about.
    :param request_timeout: seconds that a request may take in all, unless it brings its own.
    :param max_connections: how many requests are on the wire to one endpoint at a time; the rest wait within their
        deadline. Those that wait for a member that hangs hold up nothing that goes to another one.
    :param random: gives numbers from 0 up to 1; for the waits between attempts.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: IGatewayReactor,
        endpoints: Sequence[Endpoint],
        *,
        tls: TLSSettings,
        credentials: Credentials | None,
        connect_timeout: float,
        request_timeout: float,
        max_connections: int,
        random: Callable[[], float],
    ) -> None:
        self.request_timeout = request_timeout
        self.random = random
        self._reactor = reactor
        self._endpoints = EndpointSet(endpoints, reactor.seconds, random)
        self._connect_timeout = connect_timeout
        self._connections = Connections(reactor, TLSTrust(tls), connect_timeout)
        self._agent = PooledAgent(self._connections.to, reactor)
        self._exchange = Exchange(cast("IAgent", self._agent), reactor, _MAX_ANSWER)
        # Beside the turns: those may all be taken by requests to the very member that hangs.
        self._checkups = Checkups(
            lambda endpoint, path, body: self._post(endpoint, path, "", body),
            self._endpoints,
            reactor,
            min(connect_timeout, request_timeout * _CHECKUP_SHARE),
        )
        self._max_connections = max_connections
        self._turns: dict[Endpoint, DeferredSemaphore] = {}
        self._headers = ("", SentHeaders(self._header_values("")))
        self._calls: set[UnaryCall[Any]] = set()
        self._opening: set[Deferred[Any]] = set()
        self._stopped = False
        self._tokens = Tokens(lambda: self._authenticate(credentials)) if credentials else None
        self._route = self._make_route(self._tokens)

    # --- requests ---------------------------------------------------------------------------------------------------

    def unary(
        self,
        rpc: RPC[RequestT, ResponseT],
        request: RequestT,
        *,
        timeout: float | None = None,
        deadline: float | None = None,
        name: str = "",
        endpoint: Endpoint | None = None,
    ) -> Deferred[ResponseT]:
        """
        One request, one answer.

        :param timeout: seconds for all of it; the gateway's ``request_timeout`` where it is None.
        :param deadline: when these are over, by the reactor's clock, where some of them have passed already.
        :param name: what errors call it, where that is not the call's own name.
        :param endpoint: the one that it is for, which need not be one of :attr:`endpoints`; it goes nowhere else. None
            for whichever serves.
        :raises EtcdError: what etcd answered.
        :raises Unavailable: it was certainly not applied.
        :raises OutcomeUnknown: a write that may have been applied.
        :raises DeadlineExceeded: a read without an answer in time.
        """
        route = self._route if endpoint is None else self._make_route(self._tokens, self._only(endpoint))
        return self._unary(route, rpc, request, timeout=timeout, deadline=deadline, name=name)

    def _unary(
        self,
        route: Route,
        rpc: RPC[RequestT, ResponseT],
        request: RequestT,
        *,
        timeout: float | None,
        deadline: float | None = None,
        name: str = "",
    ) -> Deferred[ResponseT]:
        return self._call(
            route,
            rpc,
            rpc.encode(request),
            lambda reply, endpoint: read_reply(rpc, reply, endpoint),
            repeatable=rpcs.repeatable(rpc, request),
            timeout=timeout,
            deadline=deadline,
            name=name or rpc.name,
        )

    def batch(
        self, rpc: RPC[RequestT, ResponseT], requests: Sequence[RequestT], *, timeout: float | None = None
    ) -> Deferred[list[ResponseT]]:
        """
        Several requests of a streaming call in one POST, and what etcd answered to them.

        There can be fewer answers than requests: etcd leaves out those that it read too late. Errors as for
        :meth:`unary`.
        """
        body = b"\n".join(rpc.encode(request) for request in requests)
        return self._call(
            self._route,
            rpc,
            body,
            lambda reply, endpoint: read_replies(rpc, reply, endpoint),
            repeatable=all(rpcs.repeatable(rpc, request) for request in requests),
            timeout=timeout,
            name=rpc.name,
        )

    def _call(
        self,
        route: Route,
        rpc: RPC[Any, Any],
        body: bytes,
        read: Callable[[Reply, str], AnyT],
        *,
        repeatable: bool,
        timeout: float | None,
        name: str,
        deadline: float | None = None,
    ) -> Deferred[AnyT]:
        if self._stopped:
            return fail(ServiceStopped(f"the client was stopped before {name}"))
        self._look_after_endpoints()
        call = UnaryCall(
            route,
            rpc,
            body,
            read,
            repeatable=repeatable,
            timeout=self.request_timeout if timeout is None else timeout,
            name=name,
            deadline=deadline,
        )
        self._calls.add(call)

        def done(result: AnyT) -> AnyT:
            self._calls.discard(call)
            return result

        return call.start().addBoth(done)

    def _turns_at(self, endpoint: Endpoint) -> DeferredSemaphore:
        turns = self._turns.get(endpoint)
        if turns is None:
            turns = self._turns[endpoint] = DeferredSemaphore(self._max_connections)
        return turns

    def _post(self, endpoint: Endpoint, path: str, token: str, body: bytes) -> Deferred[Reply]:
        return self._exchange.post(f"{endpoint}{path}", self._headers_with(token), body)

    # --- endpoints --------------------------------------------------------------------------------------------------

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """All endpoints, in the order given."""
        return self._endpoints.all

    @property
    def endpoint_statuses(self) -> tuple[EndpointStatus, ...]:
        """What is known of each endpoint, in the order given."""
        return self._endpoints.statuses()

    def use_endpoints(self, endpoints: Sequence[Endpoint]) -> None:
        """Go to these from now on; streams that are open elsewhere stay as long as they last."""
        self._endpoints.replace(endpoints)
        self._turns = {endpoint: turns for endpoint, turns in self._turns.items() if endpoint in endpoints}

    def checkup(self, endpoint: Endpoint) -> Deferred[Condition]:
        """
        How the member there is, by its own account; what is found is noted.

        :return: fires within ``connect_timeout``; at once, with trouble, where the gateway was stopped.
        """
        return self._checkups.of(endpoint)

    def _look_after_endpoints(self) -> None:
        """Ask those that failed a while ago how they are, so that no request has to find out."""
        if len(self._endpoints.all) > 1:
            for endpoint in self._endpoints.due():
                self._checkups.of(endpoint)

    def _only(self, endpoint: Endpoint) -> EndpointSet:
        """What is meant for one member is told to no other, and says nothing of how the others serve."""
        return EndpointSet((endpoint,), self._reactor.seconds, self.random)

    # --- streams ----------------------------------------------------------------------------------------------------

    def choose_besides(self, tried: Container[Endpoint]) -> Endpoint | None:
        """The endpoint that a stream would be opened to where these were tried; None where there is no other."""
        self._look_after_endpoints()
        return self._endpoints.choose(tried)

    def choose(self) -> Endpoint:
        """The endpoint that a stream would be opened to now."""
        self._look_after_endpoints()
        chosen = self._endpoints.choose()
        # There is always one.
        return chosen or self._endpoints.all[0]

    def failed(self, endpoint: Endpoint, why: str) -> None:
        """A stream to this endpoint broke or could not be opened: what comes next goes elsewhere if it can."""
        self._endpoints.failed(endpoint, why)

    def served(self, endpoint: Endpoint) -> None:
        """It is known to serve."""
        self._endpoints.served(endpoint)

    def open_post_stream(
        self,
        rpc: RPC[Any, Any],
        body: bytes,
        receiver: StreamReceiver,
        *,
        endpoint: Endpoint,
        with_leader: bool = True,
    ) -> Deferred[PostStream]:
        """
        A POST whose answer does not end, on a connection of its own.

        :param body: all that the server will be told.
        :param with_leader: whether a member is to refuse it that has no leader, and to end it when it loses its leader.
        :raises EtcdError: where etcd refused it.
        :raises Unavailable: where the endpoint could not be reached, or was not etcd.
        """

        async def opening(token: str) -> PostStream:
            needs = {"Grpc-Metadata-hasleader": "true"} if with_leader else {}
            headers = {**needs, **self._header_values(token)}
            return await open_post_stream(
                self._connections.to(endpoint),
                f"{endpoint}{rpc.path}",
                headers,
                body,
                receiver,
                clock=self._reactor,
                head_timeout=self._connect_timeout + self.request_timeout,
            )

        return self._open(opening, rpc, endpoint)

    def open_websocket(
        self, rpc: RPC[Any, Any], receiver: StreamReceiver, *, endpoint: Endpoint
    ) -> Deferred[WebSocket]:
        """
        A stream in both directions. A token travels as a subprotocol, which not every etcd reads.

        :raises EtcdError: where etcd refused it.
        :raises Unavailable: where the endpoint could not be reached, was not etcd, or refuses WebSockets.
        """

        async def opening(token: str) -> WebSocket:
            return await open_websocket(
                self._connections.to(endpoint),
                host=endpoint.authority,
                path=rpc.path,
                subprotocols=("Bearer", token) if token else (),
                receiver=receiver,
                clock=self._reactor,
                handshake_timeout=self._connect_timeout,
            )

        return self._open(opening, rpc, endpoint)

    def _open(
        self, opening: Callable[[str], Coroutine[Deferred[Any], Any, AnyT]], rpc: RPC[Any, Any], endpoint: Endpoint
    ) -> Deferred[AnyT]:
        if self._stopped:
            return fail(ServiceStopped(f"the client was stopped before {rpc.name}"))

        failed = f"no stream for {rpc.name}"

        async def attempt() -> AnyT:
            try:
                token = await self._tokens.current() if self._tokens else ""
                return await opening(token)
            except StreamRefused as refused:
                error = self._refusal(rpc, endpoint, refused)
                raise error from refused
            except CancelledError:
                if self._stopped:
                    msg = f"the client was stopped while {rpc.name} was being opened"
                    raise ServiceStopped(msg) from None
                raise
            except TwistedEtcdError:
                raise
            except StreamMalformed as malformed:
                raise NotEtcd(failed, {str(endpoint): str(malformed)}) from malformed
            except Exception as error:
                why, obstacle = explain(Failure())
                raise (obstacle or Unavailable)(failed, {str(endpoint): why}) from error

        deferred = Deferred.fromCoroutine(attempt())
        self._opening.add(deferred)

        def done(result: AnyT) -> AnyT:
            self._opening.discard(deferred)
            return result

        return deferred.addBoth(done)

    @staticmethod
    def _refusal(rpc: RPC[Any, Any], endpoint: Endpoint, refused: StreamRefused) -> EtcdError | Unavailable:
        answered = read_error(refused.status, refused.body, rpc.path)
        if answered is not None:
            return answered
        if refused.status >= INTERNAL_SERVER_ERROR:
            # A proxy before an etcd that is away.
            return Unavailable(f"no stream for {rpc.name}", {str(endpoint): f"answered {refused.status}"})
        why = stranger(refused.status, "", "", refused.body)
        return NotEtcd(f"no stream for {rpc.name}", {str(endpoint): why})

    @property
    def has_user(self) -> bool:
        """Whether requests come with a token."""
        return self._tokens is not None

    def renew_token(self) -> bool:
        """Fetch a new token for what comes next; False without a user, who alone has one."""
        if self._tokens is None:
            return False
        self._tokens.forget()
        return True

    # --- tokens and headers -----------------------------------------------------------------------------------------

    def _authenticate(self, credentials: Credentials) -> Deferred[str]:
        request = AuthenticateRequest(name=credentials.username, password=credentials.password)
        # Those who wait for the token are told why there is none, if they began when this did.
        timeout = self.request_timeout * _TOKEN_SHARE
        calling = self._unary(self._make_route(None), rpcs.AUTHENTICATE, request, timeout=timeout)

        def without_authentication(failure: Failure) -> str:
            failure.trap(AuthNotEnabled)
            self._log.warn("etcd has authentication off; the user {user} goes unused", user=credentials.username)
            return ""

        return calling.addCallbacks(lambda response: response.token, without_authentication)

    def _make_route(self, tokens: Tokens | None, endpoints: EndpointSet | None = None) -> Route:
        return Route(
            clock=self._reactor,
            endpoints=endpoints or self._endpoints,
            turns=self._turns_at,
            post=self._post,
            checkup=self.checkup,
            longest_patience=self._connect_timeout,
            tokens=tokens,
            random=self.random,
        )

    @staticmethod
    def _header_values(token: str) -> dict[str, str]:
        values = {"Accept": "application/json", "Content-Type": "application/json"}
        return {**values, "Authorization": token} if token else values

    def _headers_with(self, token: str) -> SentHeaders:
        if self._headers[0] != token:
            self._headers = (token, SentHeaders(self._header_values(token)))
        return self._headers[1]

    # --- the end ----------------------------------------------------------------------------------------------------

    @property
    def connection_count(self) -> int:
        """How many sockets are open."""
        return self._connections.count

    def stop(self) -> Deferred[None]:
        """
        End all that is under way, and close every socket.

        :return: fires when the last of them has gone. Calls fail with :class:`~twisted_etcd.errors.ServiceStopped`.
        """
        self._stopped = True
        self._checkups.stop()
        for call in tuple(self._calls):
            call.stop()
        for opening in tuple(self._opening):
            opening.cancel()

        self._agent.close()
        self._connections.abort()
        return self._connections.all_gone()
