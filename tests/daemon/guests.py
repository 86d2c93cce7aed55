"""Services of somebody's own, for daemons to host: they live on etcd through messages alone."""

from __future__ import annotations

import msgspec
from twisted.logger import Logger

from twisted_etcd.messaging.messages import Message, Request
from twisted_etcd.messaging.routes import handles
from twisted_etcd.messaging.service import MessageService
from twisted_etcd.services.messages import ETCD_SERVICE, EtcdGetReq, EtcdSetReq


class Noted(Message, frozen=True):
    text: bytes | None
    revision: int


class Note(Request[Noted], frozen=True):
    text: str


class Notebook(MessageService):
    """Keeps a note in etcd, and writes a last one when it stops."""

    _log = Logger()

    class Settings(msgspec.Struct, frozen=True):
        key: str
        pages: int = 1

    def __init__(self, name: str | None = None, *, settings: Settings) -> None:
        super().__init__(name)
        self.settings = settings

    @handles(Note)
    async def on_note(self, message: Note) -> Noted:
        await self.call(ETCD_SERVICE, EtcdSetReq(self.settings.key, message.text))
        answer = await self.call(ETCD_SERVICE, EtcdGetReq(self.settings.key))
        return Noted(answer.value, answer.mod_revision)

    async def on_stop(self) -> None:
        kept = await self.call(ETCD_SERVICE, EtcdSetReq(self.settings.key, "the end"))
        self._log.info("{name}: the last note is kept: {success}", name=self.name, success=kept.success)


class Refuser(MessageService):
    async def on_init(self) -> None:
        msg = "no paper"
        raise RuntimeError(msg)
