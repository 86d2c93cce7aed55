"""
The messages that :class:`~twisted_etcd.services.etcd.EtcdService` answers, and those that it sends.

Keys and values go in as ``bytes`` or ``str`` (UTF-8) and come out as ``bytes``. A call whose request fails at etcd
fails with the error of :mod:`twisted_etcd.errors` that the client gives for it.
"""

from __future__ import annotations

import msgspec

from twisted_etcd.config.changes import ChangeType
from twisted_etcd.config.history import ConfigHistoryEntry, Older
from twisted_etcd.messaging.addresses import ServiceHandle
from twisted_etcd.messaging.messages import Message, Request
from twisted_etcd.registry.filter import CALLABLE
from twisted_etcd.registry.health.health import Health
from twisted_etcd.registry.instance import Instance, Status
from twisted_etcd.registry.registration import RegistrationState
from twisted_etcd.schema.kv import Compare, EventType, RequestOp, ResponseOp

#: The name under which ``EtcdService`` is found, unless it is given another.
ETCD_SERVICE = "EtcdService"

Text = str | bytes
Subscriber = str | ServiceHandle | None

# --- key-values -----------------------------------------------------------------------------------------------------


class EtcdKeyExistResp(Message, frozen=True):
    """Answers :class:`EtcdKeyExistReq`."""

    exist: bool


class EtcdKeyExistReq(Request[EtcdKeyExistResp], frozen=True):
    """Say whether there is such a key."""

    key: Text


class EtcdGetResp(Message, frozen=True):
    """
    Answers :class:`EtcdGetReq`.

    :ivar value: None where there is no such key; an empty value is a value.
    :ivar mod_revision: the revision of the key's last change; 0 where there is no such key.
    """

    value: bytes | None
    mod_revision: int = 0


class EtcdGetReq(Request[EtcdGetResp], frozen=True):
    """Read a key."""

    key: Text


class EtcdSetResp(Message, frozen=True):
    """
    Answers :class:`EtcdSetReq`.

    :ivar revision: etcd's revision of the change.
    """

    success: bool
    revision: int


class EtcdSetReq(Request[EtcdSetResp], frozen=True):
    """
    Put a key.

    :ivar lease_id: the lease that the key lives by; 0 for none.
    """

    key: Text
    value: Text
    lease_id: int = 0


class EtcdDelResp(Message, frozen=True):
    """
    Answers :class:`EtcdDelReq`.

    :ivar success: the key was there.
    """

    success: bool
    deleted: int


class EtcdDelReq(Request[EtcdDelResp], frozen=True):
    """Delete a key."""

    key: Text


class EtcdGetAllResp(Message, frozen=True):
    """
    Answers :class:`EtcdGetAllReq`.

    :ivar kvs: values by keys, in the order of the keys, all of one revision.
    """

    kvs: dict[bytes, bytes]


class EtcdGetAllReq(Request[EtcdGetAllResp], frozen=True):
    """Read all keys that begin with a prefix."""

    prefix: Text


class EtcdListKeysResp(Message, frozen=True):
    """Answers :class:`EtcdListKeysReq`, in the order of the keys."""

    keys: tuple[bytes, ...]


class EtcdListKeysReq(Request[EtcdListKeysResp], frozen=True):
    """Name all keys that begin with a prefix."""

    prefix: Text


class EtcdBatchGetResp(Message, frozen=True):
    """
    Answers :class:`EtcdBatchGetReq`.

    :ivar kvs: a value for each key that was asked for, None where it is not there, all of one revision.
    """

    kvs: dict[bytes, bytes | None]


class EtcdBatchGetReq(Request[EtcdBatchGetResp], frozen=True):
    """Read several keys in one round trip. etcd takes up to 128 at a time, unless it was set up otherwise."""

    keys: tuple[Text, ...]


class EtcdTxnResp(Message, frozen=True):
    """
    Answers :class:`EtcdTxnReq`.

    :ivar succeeded: whether all comparisons held.
    :ivar responses: one for each operation that was done.
    """

    succeeded: bool
    responses: tuple[ResponseOp, ...]
    revision: int


class EtcdTxnReq(Request[EtcdTxnResp], frozen=True):
    """A transaction; its parts are made with :mod:`twisted_etcd.client.compare` and :mod:`twisted_etcd.client.op`."""

    compare: tuple[Compare, ...] = ()
    success: tuple[RequestOp, ...] = ()
    failure: tuple[RequestOp, ...] = ()


# --- leases ---------------------------------------------------------------------------------------------------------


class EtcdLeaseGrantResp(Message, frozen=True):
    """
    Answers :class:`EtcdLeaseGrantReq`.

    :ivar ttl: the seconds that etcd granted, which can be more than was asked for.
    """

    lease_id: int
    ttl: int


class EtcdLeaseGrantReq(Request[EtcdLeaseGrantResp], frozen=True):
    """
    Grant a lease.

    :ivar ttl: seconds.
    :ivar keep_alive: whether the service keeps it alive until it is revoked or the service stops; without it the lease
        ends after its TTL.
    """

    ttl: int
    keep_alive: bool = False


class EtcdLeaseRevokeResp(Message, frozen=True):
    """
    Answers :class:`EtcdLeaseRevokeReq`.

    :ivar success: the lease was there.
    """

    success: bool


class EtcdLeaseRevokeReq(Request[EtcdLeaseRevokeResp], frozen=True):
    """Revoke a lease, which deletes its keys."""

    lease_id: int


# --- watches --------------------------------------------------------------------------------------------------------


class EtcdWatchEvent(Message, frozen=True, kw_only=True):
    """
    One change of a watched key, sent to the subscriber in the order of the revisions.

    :ivar value: None where it was deleted.
    :ivar prev_value: what was there before; None where nothing was, or it is already compacted.
    """

    watch_id: int
    key: bytes
    event_type: EventType
    value: bytes | None
    prev_value: bytes | None
    revision: int


class EtcdWatchEndedMsg(Message, frozen=True):
    """
    Sent to the subscriber of a watch of any kind that ended without having been asked to.

    :ivar error: what ended it: ``Compacted``, ``PermissionDenied``, …
    """

    watch_id: int
    error: Exception


class EtcdWatchResp(Message, frozen=True):
    """
    Answers :class:`EtcdWatchReq`, once etcd has confirmed the watch.

    :ivar revision: the store's revision then.
    """

    watch_id: int
    revision: int


class EtcdWatchReq(Request[EtcdWatchResp], frozen=True, kw_only=True):
    """
    Follow a key, or with ``prefix`` all keys that begin with it: :class:`EtcdWatchEvent` goes to the subscriber.

    :ivar start_revision: the first revision that is wanted; 0 for all that comes after the confirmation.
    :ivar subscriber: a service's name or handle; the sender unless given. The watch ends with it.
    """

    key: Text
    prefix: bool = False
    start_revision: int = 0
    subscriber: Subscriber = None


class EtcdUnwatchResp(Message, frozen=True):
    """
    Answers :class:`EtcdUnwatchReq`.

    :ivar success: there was such a watch. Nothing more is sent for it.
    """

    success: bool


class EtcdUnwatchReq(Request[EtcdUnwatchResp], frozen=True):
    """End a watch of keys, of configuration or of a service."""

    watch_id: int


# --- configuration --------------------------------------------------------------------------------------------------


class EtcdConfigLoadResp(Message, frozen=True):
    """
    Answers :class:`EtcdConfigLoadReq`.

    :ivar config_value: None where it is not set.
    :ivar mod_revision: the revision of its last change; 0 where it is not set.
    """

    config_value: bytes | None
    mod_revision: int = 0


class EtcdConfigLoadReq(Request[EtcdConfigLoadResp], frozen=True):
    """Read a configuration value by its path below the configuration prefix."""

    config_key: str


class EtcdConfigSetResp(Message, frozen=True):
    """
    Answers :class:`EtcdConfigSetReq`.

    :ivar success: it was set. It was not where its last change does not have the revision that the request wants.
    :ivar revision: etcd's revision of the change; where it was not set, that of the last change there was, 0 for none.
    """

    success: bool
    revision: int


class EtcdConfigSetReq(Request[EtcdConfigSetResp], frozen=True):
    """
    Set a configuration value.

    :ivar if_revision: only where its last change has this revision; 0: where it is not set.
    """

    config_key: str
    config_value: Text
    if_revision: int | None = None


class EtcdConfigHistoryResp(Message, frozen=True):
    """
    Answers :class:`EtcdConfigHistoryReq`.

    :ivar entries: the newest first, each with its revision, value and kind.
    :ivar older: what there is before them: nothing, what etcd has compacted, or more than was asked for.
    """

    entries: tuple[ConfigHistoryEntry, ...]
    older: Older


class EtcdConfigHistoryReq(Request[EtcdConfigHistoryResp], frozen=True):
    """
    Say what happened to a configuration value, back to where etcd's history has been compacted.

    :ivar limit: how many changes at the most; 0 for all.
    """

    config_key: str
    limit: int = 0


class EtcdConfigChangedMsg(Message, frozen=True, kw_only=True):
    """
    One change of a followed configuration value, sent to the subscriber.

    :ivar key: its path below the configuration prefix.
    :ivar new_value: None where it was deleted.
    :ivar old_value: None where it was not set.
    """

    key: str
    new_value: bytes | None
    old_value: bytes | None
    change_type: ChangeType
    revision: int


class EtcdConfigWatchResp(Message, frozen=True):
    """
    Answers :class:`EtcdConfigWatchReq`.

    :ivar config_value: what it is now; None where it is not set, and for a path.
    :ivar mod_revision: the revision of its last change; 0 where it is not set.
    :ivar config_values: for a path, what is below it, by keys.
    """

    watch_id: int
    config_value: bytes | None
    mod_revision: int = 0
    config_values: dict[str, bytes] = msgspec.field(default_factory=dict)


class EtcdConfigWatchReq(Request[EtcdConfigWatchResp], frozen=True):
    """
    Follow a configuration value: :class:`EtcdConfigChangedMsg` goes to the subscriber, the sender unless given.

    :ivar patient: while etcd is away, wait for it; without it, the call fails. Call with a timeout that is long enough.
    :ivar prefix: follow all that is below the path ``config_key``, which may be empty.
    :ivar quiet_min: seconds without a further change after which changes are told, several of one key as one; 0 to tell
        each at once.
    :ivar quiet_max: seconds after the first change after which they are told in any case; four times as long unless
        given.
    """

    config_key: str
    subscriber: Subscriber = None
    patient: bool = False
    prefix: bool = False
    quiet_min: float = 0.0
    quiet_max: float | None = None


# --- services -------------------------------------------------------------------------------------------------------


class EtcdHeartbeatMsg(Message, frozen=True, kw_only=True):
    """
    How a registration is, sent by each heartbeat check and after each change to whom the registration names.

    :ivar healthy: etcd has it, by a lease of ours.
    :ivar state: what it is in all else: ``wanted``, ``alive``, ``lost``, ``contested``, ``withheld``, ``ended``.
    :ivar seconds_left: how long etcd keeps it at least, by what it last confirmed.
    :ivar status: what its health checks say; None where it has none.
    :ivar why: what led to that status.
    """

    service_name: str
    service_address: str
    healthy: bool
    state: RegistrationState
    seconds_left: float
    status: Status | None = None
    why: str = ""


class EtcdServiceRegisterResp(Message, frozen=True):
    """
    Answers :class:`EtcdServiceRegisterReq`.

    :ivar lease_id: the lease that the key lives by; 0 where its health has the key not there yet.
    """

    success: bool
    lease_id: int


class EtcdServiceRegisterReq(Request[EtcdServiceRegisterResp], frozen=True, kw_only=True):
    """
    Register an instance of a service, from now until it is unregistered or the ``EtcdService`` stops. Registered once
    more, it is replaced, without a moment in which it is not there; where that fails, the earlier registration stays.

    :ivar service_address: ``host:port`` where others reach it.
    :ivar ttl: seconds that it stays when nothing is heard of this process any more.
    :ivar drain: seconds between the removal of its key and the answer to :class:`EtcdServiceUnregisterReq`, or the
        stop.
    :ivar weight: its share of the calls, against the other instances' weights.
    :ivar id: what tells it from the others; the address unless given.
    :ivar format: how it is written in etcd: ``json``, ``go``, or ``address``.
    :ivar own_lease: with a lease of its own, and not the one that all with its TTL share.
    :ivar health: what decides whether the key is there; without any it always is. Where it is not to be there yet, the
        answer does not wait for it.
    :ivar heartbeat_to: who is sent :class:`EtcdHeartbeatMsg`; nobody unless given.
    :ivar patient: while etcd is away, wait for it; without it, the call fails. Call with a timeout that is long enough.
    """

    service_name: str
    service_address: str
    ttl: int = 10
    tags: tuple[str, ...] = ()
    metadata: dict[str, str] = msgspec.field(default_factory=dict)
    heartbeat_to: Subscriber = None
    patient: bool = False
    drain: float = 0.0
    weight: int = 1
    id: str = ""
    format: str = "json"
    own_lease: bool = False
    health: tuple[Health, ...] = ()


class EtcdServiceUnregisterResp(Message, frozen=True):
    """
    Answers :class:`EtcdServiceUnregisterReq`.

    :ivar success: it was registered by this service.
    """

    success: bool


class EtcdServiceUnregisterReq(Request[EtcdServiceUnregisterResp], frozen=True):
    """
    Take a registration back: its key is removed at once.

    :ivar drain: seconds to wait then, before the answer; what it was registered with where it is None. Call with a
        timeout that is long enough: where the call ends first, so does the wait.
    """

    service_name: str
    service_address: str
    drain: float | None = None


class EtcdServiceDiscoverResp(Message, frozen=True):
    """
    Answers :class:`EtcdServiceDiscoverReq`.

    :ivar service_addresses: ``host:port`` of each instance.
    :ivar instances: the same with tags and metadata.
    :ivar stale: etcd is away, and they are the last ones known of.
    """

    service_addresses: tuple[str, ...]
    instances: tuple[Instance, ...]
    stale: bool = False


class EtcdServiceDiscoverReq(Request[EtcdServiceDiscoverResp], frozen=True):
    """
    Name the instances of a service that are registered, but for the critical ones.

    :ivar tags: those that have all of them.
    :ivar metadata: those that have all of it.
    :ivar status: those that have one of these; one that shows none counts as passing.
    :ivar fresh: ask etcd, so that every registration that was answered before is found, whoever made it. From the
        second time on, what was last known of the service is answered while etcd is away, as ``stale``. Without it,
        the answer comes from the view of the service in this process: at once, and a moment behind etcd.
    """

    service_name: str
    tags: tuple[str, ...] = ()
    metadata: dict[str, str] = msgspec.field(default_factory=dict)
    status: tuple[Status, ...] = CALLABLE
    fresh: bool = True


class EtcdServiceChangedMsg(Message, frozen=True):
    """
    The instances of a followed service changed, or what is known of them; sent to the subscriber.

    It is sent, with nothing added, removed or updated, when ``stale`` or ``held_back`` alone changes too.

    :ivar instances: all that there are now.
    :ivar added: those that are new, or changed.
    :ivar removed: those that are gone, or were changed, as they were.
    :ivar updated: those that were changed: as they were, and as they are.
    :ivar stale: etcd is away, and they are as they were when it was last heard of.
    :ivar held_back: those that vanished from etcd and are kept by the service's protection.
    """

    service_name: str
    instances: tuple[Instance, ...]
    added: tuple[Instance, ...]
    removed: tuple[Instance, ...]
    updated: tuple[tuple[Instance, Instance], ...] = ()
    stale: bool = False
    held_back: tuple[Instance, ...] = ()


class EtcdServiceWatchResp(Message, frozen=True):
    """
    Answers :class:`EtcdServiceWatchReq` with the instances there are now.

    :ivar stale: etcd is away, and they are the last ones known of.
    """

    watch_id: int
    instances: tuple[Instance, ...]
    stale: bool = False


class EtcdServiceWatchReq(Request[EtcdServiceWatchResp], frozen=True):
    """
    Follow a service: :class:`EtcdServiceChangedMsg` goes to the subscriber, the sender unless given.

    :ivar patient: while etcd is away, wait for it; without it, the call fails. Call with a timeout that is long enough.
    :ivar tags: only instances that have all of them; changes of others are not told.
    :ivar metadata: only instances that have all of it.
    :ivar status: only instances that have one of these: all but the critical ones, unless given.
    """

    service_name: str
    subscriber: Subscriber = None
    patient: bool = False
    tags: tuple[str, ...] = ()
    metadata: dict[str, str] = msgspec.field(default_factory=dict)
    status: tuple[Status, ...] = CALLABLE


class EtcdServiceHeartbeatResp(Message, frozen=True):
    """
    Answers :class:`EtcdServiceHeartbeatReq`.

    :ivar success: etcd has the registration, or got it back just now.
    :ivar ttl: seconds that etcd now keeps it for; 0 without success.
    """

    success: bool
    ttl: int


class EtcdServiceHeartbeatReq(Request[EtcdServiceHeartbeatResp], frozen=True):
    """Confirm a registration now, beside the keepalives that come by themselves."""

    service_name: str
    service_address: str
