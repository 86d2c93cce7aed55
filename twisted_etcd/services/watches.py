"""The part of ``EtcdService`` that watches keys for subscribers."""

from __future__ import annotations

from twisted_etcd.client.client import EtcdClient
from twisted_etcd.client.position import WatchBatch
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
        subscription = self._subscriptions.open(subscriber)

        def tell(batch: WatchBatch) -> None:
            for event in batch.events:
                subscription.tell(_event_message(subscription.id, event))

        watch = self._client.watch(
            message.key, prefix=message.prefix, start_revision=message.start_revision, prev_kv=True, callback=tell
        )
        revision = await self._subscriptions.begin(subscription, lambda: watch.ready, watch)
        return EtcdWatchResp(subscription.id, revision)


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
