"""What a prefix does to etcd's messages: requests go below it, answers come back without it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from msgspec.structs import replace

from twisted_etcd.errors import EmptyKey
from twisted_etcd.keys import TO_THE_END, KeyRange, prefix_end
from twisted_etcd.schema.common import Message
from twisted_etcd.schema.election import (
    CampaignRequest,
    CampaignResponse,
    LeaderKey,
    LeaderRequest,
    LeaderResponse,
    ProclaimRequest,
    ResignRequest,
)
from twisted_etcd.schema.kv import (
    Compare,
    DeleteRangeRequest,
    DeleteRangeResponse,
    Event,
    KeyValue,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    RequestOp,
    ResponseOp,
    TxnRequest,
    TxnResponse,
)
from twisted_etcd.schema.lease import LeaseTimeToLiveResponse
from twisted_etcd.schema.lock import LockRequest, LockResponse, UnlockRequest

MessageT = TypeVar("MessageT", bound=Message)
#: What says which keys it means by a key and the end of a range.
RangedT = TypeVar("RangedT", RangeRequest, DeleteRangeRequest, Compare)


def empty_key() -> EmptyKey:
    """What etcd answers to a request without a key, which would mean another one behind a prefix."""
    return EmptyKey(EmptyKey.grpc_code, EmptyKey.messages[0])


class Prefixing:
    """
    Goes between those who know keys without the prefix, and an etcd that has them with it.

    :param prefix: not empty.
    """

    def __init__(self, prefix: bytes) -> None:
        self.prefix = prefix
        self._end = prefix_end(prefix)
        self._inward: dict[type[Message], Callable[[Any], Message]] = {
            RangeRequest: self._ranged,
            DeleteRangeRequest: self._ranged,
            PutRequest: self._keyed,
            TxnRequest: self.txn,
            # The server makes keys that begin with these names.
            LockRequest: self._named,
            CampaignRequest: self._named,
            LeaderRequest: self._named,
            UnlockRequest: self._keyed,
            ProclaimRequest: self._led,
            ResignRequest: self._led,
        }
        self._outward: dict[type[Message], Callable[[Any], Message]] = {
            RangeResponse: self.found,
            PutResponse: self.written,
            DeleteRangeResponse: self._deleted,
            TxnResponse: self._done,
            LeaseTimeToLiveResponse: self._attached,
            LockResponse: self._short_key,
            CampaignResponse: self._campaigned,
            LeaderResponse: self._leader,
        }

    # --- to etcd ----------------------------------------------------------------------------------------------------

    def inward(self, request: MessageT) -> MessageT:
        """
        A request as etcd gets it; one that names no keys stays as it is.

        :raises EmptyKey: where there is a key and it is empty.
        """
        change = self._inward.get(type(request))
        return request if change is None else change(request)  # type: ignore[return-value]

    def key(self, key: bytes) -> bytes:
        """
        A key as etcd has it.

        :raises EmptyKey: where it is empty.
        """
        if not key:
            raise empty_key()
        return self.prefix + key

    def end(self, range_end: bytes) -> bytes:
        """The end of a range as etcd has it: no range leads out of the prefix."""
        if not range_end:
            return b""
        return self._end if range_end == TO_THE_END else self.prefix + range_end

    def keys(self, keys: KeyRange) -> KeyRange:
        """
        Keys as etcd has them.

        :raises EmptyKey: where there is none.
        """
        return KeyRange(self.key(keys.key), self.end(keys.range_end))

    def txn(self, request: TxnRequest) -> TxnRequest:
        """A transaction with all that is in it, also the transactions."""
        return TxnRequest(
            compare=tuple(self._ranged(each) for each in request.compare),
            success=self._operations(request.success),
            failure=self._operations(request.failure),
        )

    def _operations(self, operations: Iterable[RequestOp]) -> tuple[RequestOp, ...]:
        return tuple(
            RequestOp(
                request_range=each.request_range and self._ranged(each.request_range),
                request_put=each.request_put and self._keyed(each.request_put),
                request_delete_range=each.request_delete_range and self._ranged(each.request_delete_range),
                request_txn=each.request_txn and self.txn(each.request_txn),
            )
            for each in operations
        )

    def _ranged(self, request: RangedT) -> RangedT:
        return replace(request, key=self.key(request.key), range_end=self.end(request.range_end))

    def _keyed(self, request: Any) -> Any:  # noqa: ANN401 - two unrelated requests
        return replace(request, key=self.key(request.key))

    def _named(self, request: Any) -> Any:  # noqa: ANN401 - three unrelated requests
        return replace(request, name=self.prefix + request.name)

    def _led(self, request: Any) -> Any:  # noqa: ANN401 - two unrelated requests
        leader: LeaderKey | None = request.leader
        if leader is None:
            return request
        return replace(request, leader=replace(leader, name=self.prefix + leader.name, key=self.prefix + leader.key))

    # --- from etcd --------------------------------------------------------------------------------------------------

    def outward(self, response: MessageT) -> MessageT:
        """An answer as whoever asked reads it; one that names no keys stays as it is."""
        change = self._outward.get(type(response))
        return response if change is None else change(response)  # type: ignore[return-value]

    def found(self, response: RangeResponse) -> RangeResponse:
        """What was read."""
        return replace(response, kvs=self._all_short(response.kvs))

    def written(self, response: PutResponse) -> PutResponse:
        """What was there before a put, if that was asked for."""
        if response.prev_kv is None:
            return response
        return replace(response, prev_kv=self._short_key(response.prev_kv))

    def events(self, events: Iterable[Event]) -> tuple[Event, ...]:
        """What a watch tells."""
        return tuple(
            replace(each, kv=self._short_key(each.kv), prev_kv=each.prev_kv and self._short_key(each.prev_kv))
            for each in events
        )

    def _deleted(self, response: DeleteRangeResponse) -> DeleteRangeResponse:
        return replace(response, prev_kvs=self._all_short(response.prev_kvs))

    def _done(self, response: TxnResponse) -> TxnResponse:
        return replace(response, responses=tuple(self._answer(each) for each in response.responses))

    def _answer(self, answer: ResponseOp) -> ResponseOp:
        return ResponseOp(
            response_range=answer.response_range and self.found(answer.response_range),
            response_put=answer.response_put and self.written(answer.response_put),
            response_delete_range=answer.response_delete_range and self._deleted(answer.response_delete_range),
            response_txn=answer.response_txn and self._done(answer.response_txn),
        )

    def _attached(self, response: LeaseTimeToLiveResponse) -> LeaseTimeToLiveResponse:
        # A lease can have keys of others, which have no name here.
        inside = tuple(key.removeprefix(self.prefix) for key in response.keys if key.startswith(self.prefix))
        return replace(response, keys=inside)

    def _campaigned(self, response: CampaignResponse) -> CampaignResponse:
        leader = self._short_key(response.leader)
        return replace(response, leader=replace(leader, name=leader.name.removeprefix(self.prefix)))

    def _leader(self, response: LeaderResponse) -> LeaderResponse:
        return replace(response, kv=self._short_key(response.kv))

    def _all_short(self, kvs: Iterable[KeyValue]) -> tuple[KeyValue, ...]:
        return tuple(self._short_key(kv) for kv in kvs)

    def _short_key(self, message: Any) -> Any:  # noqa: ANN401 - whatever has a key
        return replace(message, key=message.key.removeprefix(self.prefix))
