"""A real etcd and the one in memory, asked the same."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, cast

import msgspec
import treq
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.python.failure import Failure

from tests.etcds import http_client
from tests.gateway.servers import new_gateway
from tests.wire import Event, soon
from twisted_etcd.client.bookmarks import orders_progress
from twisted_etcd.errors import EtcdError, OutcomeUnknown
from twisted_etcd.gateway.gateway import Credentials, Gateway
from twisted_etcd.gateway.stream import Stream
from twisted_etcd.gateway.websocket import WebSocket
from twisted_etcd.keys import prefix_end
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.auth import (
    AuthRoleDeleteRequest,
    AuthRoleListRequest,
    AuthUserDeleteRequest,
    AuthUserListRequest,
)
from twisted_etcd.schema.common import Message
from twisted_etcd.schema.kv import CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest
from twisted_etcd.schema.lease import LeaseKeepAliveRequest, LeaseLeasesRequest, LeaseRevokeRequest
from twisted_etcd.schema.maintenance import AlarmAction, AlarmRequest, StatusRequest, StatusResponse
from twisted_etcd.schema.rpcs import RPC
from twisted_etcd.schema.watch import WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest
from twisted_etcd.testing.memory.etcd import MemoryEtcd

#: Seconds after which what does not come is missing: short, since a failure is made many times to find its cause.
PATIENCE = 3.0
#: Likewise for what takes its time anyhow, as leases do.
LONG_PATIENCE = 20.0
#: What each cluster has of its own.
OWN = ("cluster_id", "member_id", "memberID", "raft_term", "authRevision", "token")


class Different(AssertionError):
    """The two answered differently."""

    def __init__(self, asked: object, real: object, memory: object) -> None:
        super().__init__(f"{asked}\n  real:   {real}\n  memory: {memory}")


def shape(answer: object) -> object:
    """What can be compared of an answer: all but what each cluster has of its own."""
    if isinstance(answer, EtcdError):
        return type(answer).__name__, answer.code, answer.message
    if isinstance(answer, StatusResponse):
        return answer.errors, answer.isLearner
    return _without_own(msgspec.to_builtins(answer))


def _without_own(value: object) -> object:
    if isinstance(value, dict):
        kept: dict[str, Any] = {name: _without_own(each) for name, each in value.items() if name not in OWN}
        if "keys" in kept and "grantedTTL" in kept:
            # etcd's own order is that of a Go map, and its clock goes on between the two.
            kept["keys"] = sorted(kept["keys"])
        return {**kept, "TTL": "some"} if kept.get("grantedTTL") and kept["TTL"] > 0 else kept
    if isinstance(value, list | tuple):
        return [_without_own(each) for each in value]
    return value


class Heard:
    """What came on a stream of watches."""

    def __init__(self) -> None:
        self.controls: list[object] = []
        #: By the id of the watch.
        self.events: dict[int, list[object]] = {}
        self.ends: list[Failure] = []
        self._event = Event()

    def messages_received(self, messages: Iterable[bytes]) -> None:
        for message in messages:
            self._message(message)
        self._event.happened()

    def _message(self, message: bytes) -> None:
        result = rpcs.WATCH.decode_frame(message).result
        assert result is not None
        if result.events or result.compact_revision:
            told = self.events.setdefault(result.watch_id, [])
            told += [shape(event) for event in result.events]
            if result.compact_revision:
                told.append(shape(result))
        else:
            self.controls.append(shape(result))

    def stream_ended(self, reason: Failure) -> None:
        self.ends.append(reason)
        self._event.happened()

    @property
    def count(self) -> int:
        """How many events came."""
        return sum(map(len, self.events.values()))

    async def until(self, condition: Callable[[], bool], patience: float = PATIENCE) -> None:
        await self._event.until(lambda: bool(self.ends) or condition(), patience)


class Watching:
    """
    The same watches on both.

    :ivar asked: what was asked for.
    """

    def __init__(self, real: Heard, memory: Heard, streams: Sequence[Stream]) -> None:
        self.real = real
        self.memory = memory
        self._streams = streams
        self.asked: list[object] = []

    async def ask(self, request: WatchRequest, answers: int = 1) -> None:
        """Send it to both, and wait for so many answers that are no events."""
        self.asked.append(request)
        expected = len(self.memory.controls) + answers
        for stream in self._streams:
            assert isinstance(stream, WebSocket)
            stream.send(rpcs.WATCH.encode(request))
        await self.answered(expected)

    async def answered(self, expected: int) -> None:
        try:
            for heard in (self.real, self.memory):
                await heard.until(lambda heard=heard: len(heard.controls) >= expected)  # type: ignore[misc]
        finally:
            if self.real.controls != self.memory.controls:
                raise Different(self.asked, self.real.controls, self.memory.controls)

    async def compare(self) -> None:
        """Wait until both have told the same events."""
        try:
            await self.real.until(lambda: self.real.count >= self.memory.count)
        finally:
            if self.real.events != self.memory.events or self.real.ends:
                first, second = self.real.events, self.memory.events
                ids = [each for each in first.keys() | second.keys() if first.get(each) != second.get(each)]
                told = [{each: events.get(each) for each in ids} for events in (first, second)]
                raise Different(self.asked, (told[0], self.real.ends), told[1])

    async def until_told(self, watch_id: int) -> None:
        """Until one of the watches was told something, on both; then compare."""
        for heard in (self.real, self.memory):
            await heard.until(lambda heard=heard: watch_id in heard.events, LONG_PATIENCE)  # type: ignore[misc]
        await self.compare()

    async def close(self) -> None:
        await soon(gatherResults([stream.close() for stream in self._streams]))


class Pair:
    """
    Both, as far as one user reaches them.

    :param endpoint: of the real one.
    """

    def __init__(self, endpoint: str, memory: MemoryEtcd, credentials: Credentials | None = None) -> None:
        self.real = new_gateway(endpoint, credentials=credentials)
        self.memory = new_gateway(memory.endpoint, reactor=memory.reactor, credentials=credentials)
        self.steps = 0

    async def ask(self, rpc: RPC[Any, Any], request: Message) -> Message | EtcdError:
        """
        Ask both.

        :return: what the real one answered.
        :raises Different: where the other one answers something else.
        """
        return _same(request, *[await _answer(gateway, rpc, request) for gateway in (self.real, self.memory)])

    async def ask_members(self, request_of: Callable[[int], Message]) -> Message | EtcdError:
        """Ask both something about the one member that each has, whose id it takes."""
        requests = [
            request_of((await gateway.unary(rpcs.STATUS, StatusRequest())).header.member_id)
            for gateway in (self.real, self.memory)
        ]
        answers = [
            await _answer(gateway, rpcs.ALARM, request)
            for gateway, request in zip((self.real, self.memory), requests, strict=True)
        ]
        return _same(requests[0], *answers)

    async def ask_and_meanwhile(
        self, rpc: RPC[Any, Any], request: Message, meanwhile: Callable[[], Coroutine[Any, Any, None]]
    ) -> Message | EtcdError:
        """
        Ask both what they answer only after something else was done.

        :param meanwhile: does it to both.
        """
        asked = [Deferred.fromCoroutine(_answer(gateway, rpc, request)) for gateway in (self.real, self.memory)]
        await meanwhile()
        return _same(request, *[await each for each in asked])

    async def until_at(self, prefix: bytes, count: int) -> None:
        """Until both have so many keys there."""
        asking = RangeRequest(key=prefix, range_end=prefix_end(prefix), count_only=True)
        for gateway in (self.real, self.memory):
            for _ in range(1000):
                if (await gateway.unary(rpcs.RANGE, asking)).count == count:
                    break
            else:
                msg = f"there are not {count} keys below {prefix!r}"
                raise AssertionError(msg)

    async def forget(self) -> None:
        """Forget what was before, on both."""
        await self.ask(rpcs.PUT, PutRequest(key=b"x"))
        gone = await self.ask(rpcs.DELETE_RANGE, DeleteRangeRequest(key=b"x"))
        revision: int = cast("Any", gone).header.revision
        await self.ask(rpcs.COMPACT, CompactionRequest(revision=revision, physical=True))

    async def keep_alive(self, requests: Sequence[LeaseKeepAliveRequest]) -> None:
        real, memory = [await gateway.batch(rpcs.LEASE_KEEP_ALIVE, requests) for gateway in (self.real, self.memory)]
        # etcd leaves out those that it read too late.
        if list(map(shape, real)) != list(map(shape, memory[: len(real)])):
            raise Different(requests, shape(real), shape(memory))

    async def websocket(self) -> Watching:
        """A stream for any number of watches."""
        heard = Heard(), Heard()
        streams = [
            await soon(gateway.open_websocket(rpcs.WATCH, each, endpoint=gateway.choose()))
            for gateway, each in zip((self.real, self.memory), heard, strict=True)
        ]
        return Watching(*heard, streams)

    async def post_stream(self, request: WatchCreateRequest) -> Watching:
        """A stream for one watch."""
        heard = Heard(), Heard()
        body = rpcs.WATCH.encode(WatchRequest(create_request=request))
        streams = [
            await soon(gateway.open_post_stream(rpcs.WATCH, body, each, endpoint=gateway.choose()))
            for gateway, each in zip((self.real, self.memory), heard, strict=True)
        ]
        watching = Watching(*heard, streams)
        watching.asked.append(request)
        await watching.answered(1)
        return watching

    async def stop(self) -> None:
        await soon(gatherResults([self.real.stop(), self.memory.stop()]))


def _same(asked: object, real: Message | EtcdError, memory: Message | EtcdError) -> Message | EtcdError:
    if shape(real) != shape(memory):
        raise Different(asked, shape(real), shape(memory))
    return real


async def _answer(gateway: Gateway, rpc: RPC[Any, Any], request: Message) -> Message | EtcdError:
    try:
        answer: Message = await soon(gateway.unary(rpc, request))
    except EtcdError as error:
        return error
    except OutcomeUnknown as error:
        # What etcd said, where the client does not take it for a refusal.
        if not isinstance(error.__cause__, EtcdError):
            raise
        return error.__cause__
    return answer


async def emptied(endpoint: str) -> int:
    """Take all alarms, keys, leases and users out of a real etcd; its revision then."""
    gateway = new_gateway(endpoint)
    for alarm in (await gateway.unary(rpcs.ALARM, AlarmRequest())).alarms:
        disarming = AlarmRequest(AlarmAction.DEACTIVATE, alarm.memberID, alarm.alarm)
        await gateway.unary(rpcs.ALARM, disarming)
    for each in (await gateway.unary(rpcs.LEASE_LEASES, LeaseLeasesRequest())).leases:
        await gateway.unary(rpcs.LEASE_REVOKE, LeaseRevokeRequest(ID=each.ID))
    for name in (await gateway.unary(rpcs.USER_LIST, AuthUserListRequest())).users:
        await gateway.unary(rpcs.USER_DELETE, AuthUserDeleteRequest(name=name))
    for name in (await gateway.unary(rpcs.ROLE_LIST, AuthRoleListRequest())).roles:
        await gateway.unary(rpcs.ROLE_DELETE, AuthRoleDeleteRequest(role=name))
    await gateway.unary(rpcs.PUT, PutRequest(key=b"x"))
    gone = await gateway.unary(rpcs.DELETE_RANGE, DeleteRangeRequest(key=b"\x00", range_end=b"\x00"))
    await soon(gateway.stop())
    return gone.header.revision


async def until_synced(endpoint: str) -> None:
    """Until a real etcd has brought every watch of the past up to now; asking it is the way to wait."""
    for _ in range(1000):
        response = await http_client().get(f"{endpoint}/metrics")
        metrics = await treq.text_content(response)
        if re.search(r"^etcd_debugging_mvcc_slow_watcher_total 0$", metrics, re.MULTILINE):
            return
    msg = "etcd does not bring its watches up to now"
    raise AssertionError(msg)


async def memory_like(endpoint: str, revision: int) -> MemoryEtcd:
    """An etcd in memory that is as empty, at the same revision, as quick to elect, and as old."""
    gateway = new_gateway(endpoint)
    version = (await gateway.unary(rpcs.STATUS, StatusRequest())).version
    await soon(gateway.stop())
    return MemoryEtcd(
        cast("Any", reactor),
        min_lease_ttl=1,
        first_revision=revision,
        # Of the versions at hand, those that answer progress too early are the old ones.
        old=not orders_progress(version),
    )


CANCEL = WatchCancelRequest
PROGRESS = WatchRequest(progress_request=WatchProgressRequest())
