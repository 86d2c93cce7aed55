"""The part of ``EtcdService`` that watches keys for subscribers."""

from __future__ import annotations

from twisted_etcd.client.client import EtcdClient
from twisted_etcd.client.position import WatchBatch
from twisted_etcd.client.watch import Watch
from twisted_etcd.errors import Compacted, EmptyKey
from twisted_etcd.messaging.addresses import ServiceHandle
from twisted_etcd.schema.kv import Event, EventType
from twisted_etcd.services.messages import EtcdWatchEvent, EtcdWatchReq, EtcdWatchResp
from twisted_etcd.services.subscriptions import Subscriptions


class Watches:
    """Turns what a watch delivers into messages."""

    def __init__(self, client: EtcdClient, subscriptions: Subscriptions) -> None:
        self._client = client
        self._subscriptions = subscriptions

    async def watch(self, message: EtcdWatchReq, subscriber: ServiceHandle) -> EtcdWatchResp:
        """``Watch.Watch``, for a subscriber."""
        if not message.key and not message.prefix:
            # etcd would watch the key "\\0", and so nothing that anybody puts.
            raise EmptyKey(EmptyKey.grpc_code, EmptyKey.messages[0])
        subscription = self._subscriptions.new(subscriber)

        def tell(batch: WatchBatch) -> None:
            for event in batch.events:
                subscription.tell(_event_message(subscription.id, event))

        watch = self._client.watch(
            message.key, prefix=message.prefix, start_revision=message.start_revision, prev_kv=True, callback=tell
        )
        revision = await self._subscriptions.begin(subscription, watch, lambda: self._ready(watch, message))
        return EtcdWatchResp(subscription.id, revision)

    async def _ready(self, watch: Watch, message: EtcdWatchReq) -> int:
        revision = await watch.ready
        if 0 < message.start_revision <= revision:
            # etcd confirms a watch from a revision that it no longer has, and ends it a moment later.
            try:
                await self._client.get(
                    message.key, prefix=message.prefix, count_only=True, revision=message.start_revision
                )
            except Compacted:
                # It says there from where on it could be watched.
                await watch.ended
        return revision


def _event_message(watch_id: int, event: Event) -> EtcdWatchEvent:
    deleted = event.type is EventType.DELETE
    return EtcdWatchEvent(
        watch_id=watch_id,
        key=event.kv.key,
        event_type=event.type,
        value=None if deleted else event.kv.value,
        prev_value=None if event.prev_kv is None else event.prev_kv.value,
        revision=event.kv.mod_revision,
    )
