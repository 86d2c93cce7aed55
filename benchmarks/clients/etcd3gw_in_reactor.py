"""etcd3gw, called in the reactor's thread by a service of a node."""

from __future__ import annotations

from typing import Any

from benchmarks.clients.etcd3gw_client import Etcd3gw
from benchmarks.clients.reactor_loop import ReactorLoop
from twisted_etcd import ETCD_SERVICE, EtcdGetReq, EtcdGetResp, MessageService, handles


class BlockingService(MessageService):
    """Answers ``EtcdGetReq`` as a service does that was not written for a reactor."""

    name = ETCD_SERVICE

    def __init__(self, client: Any) -> None:  # noqa: ANN401 - etcd3gw's
        super().__init__()
        self._client = client

    @handles(EtcdGetReq)
    def on_get(self, message: EtcdGetReq) -> EtcdGetResp:
        """See the message."""
        values = self._client.get(message.key)
        return EtcdGetResp(values[0] if values else None)


class Etcd3gwInReactor(Etcd3gw):
    """The same client; the loop is the reactor's."""

    def __init__(self, reactor: Any, endpoint: str) -> None:  # noqa: ANN401 - any of Twisted's
        super().__init__(endpoint)
        self.loop = ReactorLoop(reactor)  # type: ignore[assignment]

    def service(self) -> MessageService:
        """The service that blocks."""
        return BlockingService(self.client)
