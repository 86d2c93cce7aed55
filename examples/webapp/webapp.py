"""
A Twisted web application with etcd inside: it answers from etcd, is configured by etcd, and can be found through etcd.

* ``GET /`` answers with a banner, the configuration key ``webapp/banner``: when that changes, so does the page.
* ``GET /prices/NAME`` answers with what etcd has at ``/webapp/prices/NAME``. While etcd thinks about it, the reactor
  serves everybody else.
* The application is registered as the service ``webapp``, with the port that it listens on, for as long as it runs.

This module is the application. There are two ways to run it, in this directory: ``webapp.tac`` is a file for ``twistd
--python``, and ``webapp_tap.py`` with ``twisted/plugins/webapp_plugin.py`` make it a command, ``twistd webapp``.
"""

from __future__ import annotations

from typing import cast

from twisted.application.service import IService, MultiService
from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort, IReactorCore, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from twisted_etcd import (
    ETCD_SERVICE,
    ConfigWatch,
    EtcdApi,
    EtcdClient,
    EtcdConfigChangedMsg,
    EtcdGetReq,
    EtcdService,
    MessageService,
    Node,
    ServiceUnavailable,
    TwistedEtcdError,
)

PRICES = "/webapp/prices/"
PLAIN_TEXT = "text/plain; charset=utf-8"


class Banner(Resource):
    """Answers from what the watch knows, without asking anybody."""

    isLeaf = True

    def __init__(self, banner: ConfigWatch) -> None:
        super().__init__()
        self._banner = banner

    def render_GET(self, request: Request) -> bytes:
        """Answer at once."""
        request.setHeader("Content-Type", PLAIN_TEXT)
        return self._banner.value or b"(no banner is configured)"


class Prices(Resource):
    """Answers from etcd: a message to its service for each request."""

    isLeaf = True
    _log = Logger()

    def __init__(self, web_app: WebApp) -> None:
        super().__init__()
        self._web_app = web_app

    def render_GET(self, request: Request) -> int:
        """Answer later. A visitor who leaves before that takes the question to etcd back."""
        request.setHeader("Content-Type", PLAIN_TEXT)
        answering = Deferred.fromCoroutine(self._answer(request))
        request.notifyFinish().addErrback(lambda _: answering.cancel())
        answering.addErrback(self._failed)
        return NOT_DONE_YET

    async def _answer(self, request: Request) -> None:
        name = "/".join(part.decode("utf-8", "replace") for part in request.postpath or ())
        try:
            answer = await self._web_app.call(ETCD_SERVICE, EtcdGetReq(PRICES + name), timeout=2)
        except TwistedEtcdError as error:
            self._log.warn("the price of {name} could not be read: {why}", name=name, why=error)
            request.setResponseCode(http.SERVICE_UNAVAILABLE)
            request.write(b"prices are not known just now")
        else:
            if answer.value is None:
                request.setResponseCode(http.NOT_FOUND)
            request.write(b"there is no such price" if answer.value is None else answer.value)
        request.finish()

    def _failed(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._log.failure("a request was not answered", failure)


class WebApp(MessageService):
    """
    Listens, and is registered while it does.

    :param listen: where, as a Twisted endpoint string; the port may be 0.
    """

    _log = Logger()

    def __init__(self, reactor: IReactorTime, listen: str) -> None:
        super().__init__()
        self._endpoint = serverFromString(reactor, listen)
        self._etcd = EtcdApi(self)
        self._port: IListeningPort | None = None
        self._address = ""

    async def on_start(self) -> None:
        """Wait for etcd, for as long as it is away, and ask for visitors only when they can be served."""
        banner = await self._etcd.watch_config("webapp/banner", self._on_banner, patient=True)
        root = Resource()
        root.putChild(b"", Banner(banner))
        root.putChild(b"prices", Prices(self))
        self._port = await self._endpoint.listen(Site(root))
        host = cast("IPv4Address", self._port.getHost())
        self._address = f"{host.host}:{host.port}"
        await self._etcd.register_service("webapp", self._address, tags=("http",))
        self._log.info("webapp listens at {address}, and is registered", address=self._address)

    def _on_banner(self, change: EtcdConfigChangedMsg) -> None:
        self._log.info("the banner was {how}", how=change.change_type.value)

    async def on_stop(self) -> None:
        """Let nobody find it any more, while visitors who have found it are still served."""
        await self._etcd.unregister_service("webapp", self._address)

    async def on_exit(self) -> None:
        """Listen no more; this comes also where ``on_start`` has failed half-way."""
        if self._port is not None:
            await maybeDeferred(self._port.stopListening)


def make_webapp(reactor: IReactorTime, endpoints: str, listen: str) -> IService:
    """The application and the etcd that it needs as one service: part of a program of yours, or all of it."""
    node = Node(reactor, name="webapp")
    client = EtcdClient(reactor, endpoints)
    # In this order, since the node stops them in the opposite one.
    client.setServiceParent(node)
    EtcdService(client, reactor).setServiceParent(node)
    WebApp(reactor, listen).setServiceParent(node)

    def refused(failure: Failure) -> None:
        # The log has the reason. Without the application there is nothing that the program could go on for; any other
        # failure says that it is stopping already.
        if failure.check(ServiceUnavailable):
            IReactorCore(reactor).stop()

    node.when_started().addErrback(refused)
    program = MultiService()
    node.setServiceParent(program)
    return cast("IService", program)
