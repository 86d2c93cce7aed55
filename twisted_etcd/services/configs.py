"""The part of ``EtcdService`` that answers for configuration."""

from __future__ import annotations

from twisted_etcd.config.changes import ConfigChange
from twisted_etcd.config.configuration import Configuration
from twisted_etcd.errors import Conflict
from twisted_etcd.messaging.addresses import ServiceHandle
from twisted_etcd.services.messages import (
    EtcdConfigChangedMsg,
    EtcdConfigHistoryReq,
    EtcdConfigHistoryResp,
    EtcdConfigLoadReq,
    EtcdConfigLoadResp,
    EtcdConfigSetReq,
    EtcdConfigSetResp,
    EtcdConfigWatchReq,
    EtcdConfigWatchResp,
)
from twisted_etcd.services.subscriptions import Subscriptions


class Configs:
    """Turns configuration and its changes into messages."""

    def __init__(self, configuration: Configuration, subscriptions: Subscriptions) -> None:
        self._configuration = configuration
        self._subscriptions = subscriptions

    async def load(self, message: EtcdConfigLoadReq) -> EtcdConfigLoadResp:
        """The value now."""
        entry = await self._configuration.read(message.config_key)
        return EtcdConfigLoadResp(None) if entry is None else EtcdConfigLoadResp(entry.value, entry.revision)

    async def set(self, message: EtcdConfigSetReq) -> EtcdConfigSetResp:
        """Set the value, where it is what the message takes it for."""
        try:
            revision = await self._configuration.set(
                message.config_key, message.config_value, if_revision=message.if_revision
            )
        except Conflict as conflict:
            return EtcdConfigSetResp(success=False, revision=conflict.revision)
        return EtcdConfigSetResp(success=True, revision=revision)

    async def history(self, message: EtcdConfigHistoryReq) -> EtcdConfigHistoryResp:
        """What happened to the value."""
        history = await self._configuration.history(message.config_key, limit=message.limit)
        return EtcdConfigHistoryResp(history.entries, history.older)

    async def watch(self, message: EtcdConfigWatchReq, subscriber: ServiceHandle) -> EtcdConfigWatchResp:
        """The value now, and its changes for a subscriber."""
        subscription = self._subscriptions.new(subscriber)

        def tell(change: ConfigChange) -> None:
            subscription.tell(
                EtcdConfigChangedMsg(
                    key=change.key,
                    new_value=change.new_value,
                    old_value=change.old_value,
                    change_type=change.change_type,
                    revision=change.revision,
                )
            )

        follower = self._configuration.follow(
            message.config_key,
            tell,
            prefix=message.prefix,
            quiet_min=message.quiet_min,
            quiet_max=message.quiet_max,
            patient=message.patient,
        )
        await self._subscriptions.begin(subscription, follower, follower.start)
        if message.prefix:
            return EtcdConfigWatchResp(subscription.id, None, config_values=follower.values)
        entry = follower.entry
        if entry is None:
            return EtcdConfigWatchResp(subscription.id, None)
        return EtcdConfigWatchResp(subscription.id, entry.value, entry.revision)
