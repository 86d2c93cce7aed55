"""The part of ``EtcdService`` that answers for key-values, transactions and leases."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from twisted_etcd.client import op
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.client.lease import Lease
from twisted_etcd.errors import LeaseNotFound
from twisted_etcd.keys import to_bytes
from twisted_etcd.schema.kv import PutResponse, RangeResponse
from twisted_etcd.services.background import Background
from twisted_etcd.services.messages import (
    EtcdBatchGetReq,
    EtcdBatchGetResp,
    EtcdDelReq,
    EtcdDelResp,
    EtcdGetAllReq,
    EtcdGetAllResp,
    EtcdGetReq,
    EtcdGetResp,
    EtcdKeyExistReq,
    EtcdKeyExistResp,
    EtcdLeaseGrantReq,
    EtcdLeaseGrantResp,
    EtcdLeaseRevokeReq,
    EtcdLeaseRevokeResp,
    EtcdListKeysReq,
    EtcdListKeysResp,
    EtcdSetReq,
    EtcdSetResp,
    EtcdTxnReq,
    EtcdTxnResp,
)


def _exists(response: RangeResponse) -> EtcdKeyExistResp:
    return EtcdKeyExistResp(response.count > 0)


def _got(response: RangeResponse) -> EtcdGetResp:
    if not response.kvs:
        return EtcdGetResp(None)
    [kv] = response.kvs
    return EtcdGetResp(kv.value, kv.mod_revision)


def _set(response: PutResponse) -> EtcdSetResp:
    return EtcdSetResp(success=True, revision=response.header.revision)


class KeyValues:
    """Answers from etcd, without a state but for the leases that it keeps alive."""

    def __init__(self, client: EtcdClient, background: Background) -> None:
        self._client = client
        self._background = background
        self._leases: dict[int, Lease] = {}

    # The next three come most often: a callback costs less than a coroutine.

    def exist(self, message: EtcdKeyExistReq) -> Deferred[EtcdKeyExistResp]:
        """``KV.Range`` that only counts."""
        return self._client.get(message.key, count_only=True).addCallback(_exists)

    def get(self, message: EtcdGetReq) -> Deferred[EtcdGetResp]:
        """``KV.Range``."""
        return self._client.get(message.key).addCallback(_got)

    def set(self, message: EtcdSetReq) -> Deferred[EtcdSetResp]:
        """``KV.Put``."""
        return self._client.put(message.key, message.value, lease=message.lease_id).addCallback(_set)

    async def delete(self, message: EtcdDelReq) -> EtcdDelResp:
        """``KV.DeleteRange``."""
        response = await self._client.delete(message.key)
        return EtcdDelResp(success=response.deleted > 0, deleted=response.deleted)

    async def get_all(self, message: EtcdGetAllReq) -> EtcdGetAllResp:
        """``KV.Range``, in pages."""
        scan = self._client.scan(message.prefix, prefix=True)
        return EtcdGetAllResp({kv.key: kv.value async for kv in scan})

    async def list_keys(self, message: EtcdListKeysReq) -> EtcdListKeysResp:
        """``KV.Range``, in pages, without values."""
        scan = self._client.scan(message.prefix, prefix=True, keys_only=True)
        return EtcdListKeysResp(tuple([kv.key async for kv in scan]))

    async def batch_get(self, message: EtcdBatchGetReq) -> EtcdBatchGetResp:
        """
        ``KV.Txn`` of reads alone.

        :raises TypeError: for one key where there should be several, since it would be taken for its letters.
        """
        if isinstance(message.keys, str | bytes):
            msg = f"keys must be a list or a tuple of keys, not {type(message.keys).__name__}"
            raise TypeError(msg)
        keys = [to_bytes(key) for key in message.keys]
        if not keys:
            return EtcdBatchGetResp({})
        response = await self._client.txn(success=[op.get(key) for key in keys])
        found = [each.response_range.kvs if each.response_range else () for each in response.responses]
        return EtcdBatchGetResp({key: kvs[0].value if kvs else None for key, kvs in zip(keys, found, strict=True)})

    async def txn(self, message: EtcdTxnReq) -> EtcdTxnResp:
        """``KV.Txn``."""
        response = await self._client.txn(message.compare, message.success, message.failure)
        return EtcdTxnResp(response.succeeded, response.responses, response.header.revision)

    async def grant(self, message: EtcdLeaseGrantReq) -> EtcdLeaseGrantResp:
        """``Lease.LeaseGrant``, and keepalives where they are wanted."""
        if not message.keep_alive:
            response = await self._client.lease_grant(message.ttl)
            return EtcdLeaseGrantResp(response.ID, response.TTL)
        lease = await self._client.lease(message.ttl)
        self._leases[lease.id] = lease
        lease.lost.addCallback(lambda lost: self._leases.pop(lost.lease_id, None))
        return EtcdLeaseGrantResp(lease.id, lease.ttl)

    async def revoke(self, message: EtcdLeaseRevokeReq) -> EtcdLeaseRevokeResp:
        """``Lease.LeaseRevoke``."""
        lease = self._leases.get(message.lease_id)
        if lease is not None:
            await lease.revoke()
            return EtcdLeaseRevokeResp(success=True)
        try:
            await self._client.lease_revoke(message.lease_id)
        except LeaseNotFound:
            return EtcdLeaseRevokeResp(success=False)
        return EtcdLeaseRevokeResp(success=True)

    def revoke_all(self) -> None:
        """Revoke the leases that are kept alive, in the background."""
        leases, self._leases = self._leases, {}
        for lease in leases.values():
            self._background.add(lease.revoke(), f"lease {lease.id:x} is left to its TTL")
