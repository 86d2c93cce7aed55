"""Snapshots of real servers: whole, or not there, whatever happens on the way."""

from __future__ import annotations

import hashlib
import math
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.task import Clock
from twisted.internet.utils import getProcessOutputAndValue
from twisted.python.failure import Failure

from tests.client import users
from tests.client.conftest import MakeClient, proxy_before
from tests.etcds import ONE_VERSION, FreshEtcd, new_etcd
from tests.gateway.servers import Scripted, always, always_and_close, http_answer, silent
from tests.schema.gateways import NEWER
from tests.wire import soon
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.client.intake import MAX_WAITING
from twisted_etcd.client.snapshot import Snapshot, SnapshotDownload
from twisted_etcd.client.snapshotfile import SnapshotFile
from twisted_etcd.embedded.binary import distro_binary
from twisted_etcd.embedded.process import EmbeddedEtcd
from twisted_etcd.errors import (
    DeadlineExceeded,
    InvalidSettings,
    NotEtcd,
    PermissionDenied,
    ServiceStopped,
    SnapshotNotWritten,
    Unavailable,
    UserEmpty,
)
from twisted_etcd.schema.maintenance import SnapshotResponse
from twisted_etcd.testing.cluster import EtcdCluster
from twisted_etcd.testing.proxy import FaultProxy

#: Keys with values of zeros: their base64 is letters.
BIG_KEYS, BIG_VALUE = 24, b"\0" * 1_000_000


@pytest.fixture(scope="module")
def stocked(etcd_binary: Path) -> Iterator[EmbeddedEtcd]:
    """An etcd of each version with more than 20 MiB in it."""
    server = new_etcd(etcd_binary)
    server.startService()

    async def stock() -> None:
        await server.when_ready()
        async with EtcdClient(cast("Any", reactor), server.endpoint) as client:
            for number in range(BIG_KEYS):
                await client.put(f"big/{number}", BIG_VALUE)
            await client.put("small", "is here")

    try:
        pytest_twisted.blockon(Deferred.fromCoroutine(stock()))
        yield server
    finally:
        pytest_twisted.blockon(server.stopService())


@pytest.fixture
def before_stocked(stocked: EmbeddedEtcd) -> Iterator[FaultProxy]:
    """A proxy before it. Name it before ``make_client``."""
    proxy = proxy_before(stocked)
    yield proxy
    pytest_twisted.blockon(proxy.stopService())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the snapshot goes, with something there that is to stay until a whole one is here."""
    path = tmp_path / "snapshots" / "etcd.db"
    path.parent.mkdir()
    path.write_text("the one before")
    return path


def untouched(path: Path) -> bool:
    """Whether a snapshot that failed left nothing, and took nothing."""
    return path.read_text() == "the one before" and [path] == list(path.parent.iterdir())


def is_whole(path: Path, snapshot: Snapshot) -> bool:
    content = path.read_bytes()
    return (
        [path] == list(path.parent.iterdir())
        and len(content) == snapshot.size
        and hashlib.sha256(content[:-32]).digest() == content[-32:]
        and content[-32:].hex() == snapshot.sha256
    )


def last_download(client: EtcdClient) -> SnapshotDownload:
    (download,) = client.maintenance._downloads  # noqa: SLF001 - how much it holds is not for callers
    return download


# --- it works -------------------------------------------------------------------------------------------------------


@ensureDeferred
async def test_it_restores_with_etcdutl_and_the_keys_are_there(
    stocked: EmbeddedEtcd, make_client: MakeClient, path: Path, tmp_path: Path, fresh_etcd: FreshEtcd
) -> None:
    client = make_client(endpoints=stocked.endpoint)
    told: list[tuple[int, int]] = []
    snapshot = await soon(client.maintenance.snapshot(path, progress=lambda *numbers: told.append(numbers)))
    assert is_whole(path, snapshot)
    assert (snapshot.path, snapshot.endpoint) == (str(path), stocked.endpoint)
    # The whole size is known from the first piece on, and reached with the last.
    assert {total for _, total in told} == {snapshot.size}
    assert [written for written, _ in told] == sorted({written for written, _ in told})
    assert told[-1][0] == snapshot.size > BIG_KEYS * len(BIG_VALUE)
    etcdutl = shutil.which("etcdutl", path=str(_beside_etcd()))
    assert etcdutl is not None
    data = tmp_path / "restored"
    running: Deferred[tuple[bytes, bytes, int]]
    arguments = ["snapshot", "restore", str(path), "--data-dir", str(data / "etcd"), "--name", "embedded"]
    arguments += ["--initial-cluster=embedded=http://127.0.0.1:1", "--initial-advertise-peer-urls=http://127.0.0.1:1"]
    running = getProcessOutputAndValue(etcdutl, arguments, reactor=cast("Any", reactor))
    out, err, status = await soon(running)
    assert status == 0, (out, err)
    # What was restored says where its peers are; on its own it needs none.
    restored = await fresh_etcd(data_dir=data, extra_args=("--force-new-cluster",))
    copy = make_client(endpoints=restored.endpoint)
    assert (await copy.get("small")).kvs[0].value == b"is here"
    assert (await copy.get("big/", prefix=True, count_only=True)).count == BIG_KEYS
    assert (await copy.get(f"big/{BIG_KEYS - 1}")).kvs[0].value == BIG_VALUE


def _beside_etcd() -> Path:
    binary = distro_binary()
    assert binary is not None
    return binary.parent


@ensureDeferred
async def test_a_text_is_a_path_too_and_nothing_need_be_there_before(client: EtcdClient, tmp_path: Path) -> None:
    snapshot = await soon(client.maintenance.snapshot(str(tmp_path / "new.db"), client.endpoints[0].url, timeout=20))
    assert is_whole(tmp_path / "new.db", snapshot)


@ONE_VERSION
@ensureDeferred
async def test_while_the_disk_is_slow_the_server_waits_and_not_the_memory(
    stocked: EmbeddedEtcd, make_client: MakeClient, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make_client(endpoints=stocked.endpoint)
    go_on, in_thread = threading.Event(), set[int]()
    write = SnapshotFile.write

    def slowly(file: SnapshotFile, pieces: Any) -> int:  # noqa: ANN401
        in_thread.add(threading.get_ident())
        # The disk stands still until the intake is full, so that all comes faster than it goes.
        assert go_on.wait(20)
        return write(file, pieces)

    monkeypatch.setattr(SnapshotFile, "write", slowly)
    most: list[int] = []

    def progress(_written: int, _total: int) -> None:
        intake = last_download(client).intake
        assert intake is not None
        most.append(intake.most_held)

    saving = client.maintenance.snapshot(path, progress=progress)
    await _until(lambda: _held(client) >= MAX_WAITING)
    go_on.set()
    snapshot = await soon(saving)
    assert is_whole(path, snapshot)
    assert threading.get_ident() not in in_thread
    # What one read of the socket brings may come on top.
    assert MAX_WAITING <= max(most) < MAX_WAITING + 256 * 1024 < snapshot.size / 10


def _held(client: EtcdClient) -> int:
    intake = last_download(client).intake
    return 0 if intake is None else intake.held


async def _until(condition: Callable[[], bool]) -> None:
    """Turns of the reactor until something is so."""
    from twisted.internet.task import deferLater  # noqa: PLC0415

    for _ in range(4000):
        if condition():
            return
        await deferLater(cast("Any", reactor), 0.005)
    msg = "it did not come to be so"
    raise AssertionError(msg)


# --- what goes wrong on the way -------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [0, 1, 100, 5_000, 60_000, 1_000_000, 10_000_000])
@ensureDeferred
async def test_one_that_is_cut_at_any_byte_fails_and_leaves_nothing(
    before_stocked: FaultProxy, make_client: MakeClient, path: Path, cut: int
) -> None:
    client = make_client(endpoints=before_stocked.endpoint)
    before_stocked.cut_after(cut)
    with pytest.raises(Unavailable) as raised:
        await soon(client.maintenance.snapshot(path))
    assert list(raised.value.tried) == [before_stocked.endpoint]
    if cut > 5_000:
        assert "it broke off after" in str(raised.value)
    assert untouched(path)


@ensureDeferred
async def test_one_with_a_changed_byte_is_refused_by_its_hash(
    before_stocked: FaultProxy, make_client: MakeClient, path: Path
) -> None:
    client = make_client(endpoints=before_stocked.endpoint)
    before_stocked.spoil(12_000_000)
    with pytest.raises(Unavailable, match="do not have the SHA-256 that came with them"):
        await soon(client.maintenance.snapshot(path))
    assert untouched(path)
    await before_stocked.heal()
    assert is_whole(path, await soon(client.maintenance.snapshot(path)))


@ensureDeferred
async def test_the_next_endpoint_is_tried_from_the_beginning(
    before_stocked: FaultProxy, stocked: EmbeddedEtcd, make_client: MakeClient, path: Path
) -> None:
    client = make_client(endpoints=[before_stocked.endpoint, stocked.endpoint])
    before_stocked.cut_after(3_000_000)
    told: list[int] = []
    snapshot = await soon(client.maintenance.snapshot(path, progress=lambda written, _: told.append(written)))
    assert is_whole(path, snapshot)
    assert snapshot.endpoint == stocked.endpoint
    assert told != sorted(told)
    assert client.endpoints[0].why.startswith("it broke off after")


@ONE_VERSION
@ensureDeferred
async def test_with_a_time_the_only_endpoint_is_tried_again_until_it_works(
    before_stocked: FaultProxy, make_client: MakeClient, path: Path
) -> None:
    client = make_client(endpoints=before_stocked.endpoint)
    before_stocked.cut_after(500_000)

    def heal_after_the_second(_written: int, _total: int) -> None:
        if before_stocked.connections_made > 2:
            before_stocked.heal()

    saving = client.maintenance.snapshot(path, progress=heal_after_the_second, timeout=20)
    assert is_whole(path, await soon(saving))
    assert before_stocked.connections_made > 2


@ONE_VERSION
@ensureDeferred
async def test_when_the_time_is_over_it_says_what_went_wrong(
    before_stocked: FaultProxy, make_client: MakeClient, path: Path
) -> None:
    client = make_client(endpoints=before_stocked.endpoint)
    before_stocked.cut_after(500_000)
    with pytest.raises(DeadlineExceeded, match=r"was not whole within 0\.5 s: http.*: it broke off after"):
        await soon(client.maintenance.snapshot(path, timeout=0.5))
    assert untouched(path)


@ONE_VERSION
@ensureDeferred
async def test_a_stream_that_falls_silent_is_left(
    before_stocked: FaultProxy, stocked: EmbeddedEtcd, make_client: MakeClient, path: Path
) -> None:
    # Its patience is twice the time of a request.
    client = make_client(endpoints=[before_stocked.endpoint, stocked.endpoint], request_timeout=0.3)
    before_stocked.limit(2_000_000)

    def fall_silent(written: int, _total: int) -> None:
        if written > 200_000:
            before_stocked.swallow("answers")

    snapshot = await soon(client.maintenance.snapshot(path, progress=fall_silent))
    assert snapshot.endpoint == stocked.endpoint
    assert client.endpoints[0].why.endswith("nothing came for 0.6 s")
    assert is_whole(path, snapshot)


@ONE_VERSION
@ensureDeferred
async def test_a_member_that_is_killed_in_the_midst_is_left_for_the_next(
    etcd_cluster: EtcdCluster, make_client: MakeClient, path: Path
) -> None:
    first = etcd_cluster.members[0]
    client = make_client(endpoints=etcd_cluster.endpoints)
    for number in range(8):
        await client.put(f"snapshot/{number}", BIG_VALUE)
    await etcd_cluster.leader()
    first.proxy.limit(4_000_000)
    killing: list[Deferred[None]] = []

    def kill(written: int, _total: int) -> None:
        if written > 500_000 and not killing:
            killing.append(first.kill())

    snapshot = await soon(client.maintenance.snapshot(path, progress=kill, endpoint=None))
    await soon(killing[0])
    assert snapshot.endpoint in etcd_cluster.endpoints[1:]
    assert is_whole(path, snapshot)
    for number in range(8):
        await client.delete(f"snapshot/{number}")


@ONE_VERSION
@ensureDeferred
async def test_a_member_without_a_leader_gives_what_it_has(
    etcd_cluster: EtcdCluster, make_client: MakeClient, path: Path
) -> None:
    alone, *others = etcd_cluster.members
    client = make_client(endpoints=alone.endpoint)
    for member in others:
        await member.kill()
    assert is_whole(path, await soon(client.maintenance.snapshot(path, alone.endpoint)))


@ONE_VERSION
@ensureDeferred
async def test_only_the_endpoint_that_is_named_is_asked(
    before_stocked: FaultProxy, stocked: EmbeddedEtcd, make_client: MakeClient, path: Path
) -> None:
    client = make_client(endpoints=[stocked.endpoint])
    await before_stocked.refuse()
    with pytest.raises(Unavailable) as raised:
        await soon(client.maintenance.snapshot(path, before_stocked.endpoint))
    assert list(raised.value.tried) == [before_stocked.endpoint]
    await before_stocked.heal()
    # It need not be one of the client's own.
    snapshot = await soon(client.maintenance.snapshot(path, before_stocked.endpoint))
    assert snapshot.endpoint == before_stocked.endpoint


def a_stream(*frames: bytes) -> bytes:
    body = b"".join(frame + b"\n" for frame in frames)
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n" + body


PIECE = NEWER.write_frame(SnapshotResponse(blob=b"\0" * 1024, remaining_bytes=512)).strip()


DATABASE = bytes(range(256)) * 2
DIGEST = hashlib.sha256(DATABASE).digest()
SMALL = a_stream(
    *(NEWER.write_frame(SnapshotResponse(blob=blob)).strip() for blob in (DATABASE[:300], DATABASE[300:], DIGEST))
)


@ONE_VERSION
@ensureDeferred
async def test_cut_at_every_byte_of_its_last_ones_it_is_whole_with_its_whole_hash_alone(
    make_client: MakeClient, path: Path
) -> None:
    end = [0]

    def answer(peer: Any, _number: int) -> None:  # noqa: ANN401
        peer.say(SMALL[: end[0]])
        peer.finish()

    server = Scripted(answer)
    client = make_client(endpoints=server.url)
    for end[0] in (*range(0, len(SMALL), 50), *range(len(SMALL) - 120, len(SMALL) + 1)):
        saving = client.maintenance.snapshot(path)
        # All but the end of the last line has to be there.
        if end[0] < len(SMALL) - 1:
            with pytest.raises(Unavailable):
                await soon(saving)
            assert untouched(path)
        else:
            assert is_whole(path, await soon(saving))
            path.write_text("the one before")
    await server.close()


@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [
        (always_and_close(http_answer(b"hello")), NotEtcd, "what it answered is no snapshot of etcd's"),
        (always_and_close(http_answer(b'{"ok": true}')), NotEtcd, "what it answered is no snapshot of etcd's"),
        (always_and_close(http_answer(b"no", status=404)), NotEtcd, "answered 404"),
        (always_and_close(http_answer(b"no", status=502)), Unavailable, "answered 502"),
        (always_and_close(http_answer(b"")), Unavailable, "it was cut short after 0 bytes"),
        (always_and_close(a_stream(PIECE, b"{}")), Unavailable, "after 1024 bytes came something that cannot be read"),
        (always_and_close(a_stream(PIECE)), Unavailable, "it broke off after 1024 of 1568 bytes"),
        (
            always_and_close(a_stream(PIECE, b'{"error":{"code":14,"message":"etcdserver: server stopped"}}')),
            Unavailable,
            "etcdserver: server stopped",
        ),
        (silent, Unavailable, "no stream within"),
        (always(a_stream(PIECE)), Unavailable, "nothing came for"),
    ],
    ids=["text", "json", "404", "502", "nothing", "no-piece", "cut", "error", "silent", "hangs"],
)
@ONE_VERSION
@ensureDeferred
async def test_what_is_no_snapshot_is_told_as_what_it_is(
    make_client: MakeClient,
    path: Path,
    answer: Any,  # noqa: ANN401
    kind: type[Exception],
    text: str,
) -> None:
    server = Scripted(answer)
    client = make_client(endpoints=server.url, request_timeout=0.2, connect_timeout=0.2)
    with pytest.raises(Unavailable) as raised:
        await soon(client.maintenance.snapshot(path))
    assert type(raised.value) is kind
    assert text in str(raised.value)
    assert untouched(path)
    await server.close()


# --- the file -------------------------------------------------------------------------------------------------------


@ONE_VERSION
@ensureDeferred
async def test_a_file_that_cannot_be_written_is_named_before_anything_is_sent(
    proxy: FaultProxy, make_client: MakeClient, tmp_path: Path
) -> None:
    client = make_client(endpoints=proxy.endpoint)
    for where, why in ((tmp_path / "no" / "such.db", "No such file or directory"), (tmp_path, "it is a directory")):
        with pytest.raises(SnapshotNotWritten, match=f"the snapshot {where} could not be written: {why}"):
            await soon(client.maintenance.snapshot(where))
    assert proxy.connections_made == 0


@ONE_VERSION
@ensureDeferred
async def test_a_disk_that_is_full_in_the_midst_is_told_and_no_other_endpoint_is_asked(
    stocked: EmbeddedEtcd,
    before_stocked: FaultProxy,
    make_client: MakeClient,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import errno  # noqa: PLC0415
    import os  # noqa: PLC0415

    client = make_client(endpoints=[stocked.endpoint, before_stocked.endpoint])
    really, room = os.write, [2_000_000]

    def writes(descriptor: int, data: memoryview) -> int:
        if len(data) < 1024:
            # The reactor's own, which wakes it up.
            return really(descriptor, data)
        room[0] -= len(data)
        if room[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return really(descriptor, data)

    monkeypatch.setattr(os, "write", writes)
    with pytest.raises(SnapshotNotWritten, match=f"the snapshot {path} could not be written: No space left on device"):
        await soon(client.maintenance.snapshot(path, timeout=20))
    assert untouched(path)
    assert before_stocked.connections_made == 0


@ONE_VERSION
@ensureDeferred
async def test_two_at_a_time_to_one_file_do_not_mix(stocked: EmbeddedEtcd, make_client: MakeClient, path: Path) -> None:
    client = make_client(endpoints=stocked.endpoint)
    both = [client.maintenance.snapshot(path) for _ in range(2)]
    results = [result for _, result in await soon(DeferredList(both, consumeErrors=True))]
    # Whichever thread was faster.
    [refused] = [result for result in results if isinstance(result, Failure)]
    [saved] = [result for result in results if isinstance(result, Snapshot)]
    assert isinstance(refused.value, SnapshotNotWritten)
    assert "another snapshot is being written" in str(refused.value)
    assert is_whole(path, saved)


# --- its end --------------------------------------------------------------------------------------------------------


@ONE_VERSION
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
@ensureDeferred
async def test_cancelled_it_leaves_nothing(
    stocked: EmbeddedEtcd, make_client: MakeClient, path: Path, share: float
) -> None:
    client = make_client(endpoints=stocked.endpoint)

    def cancel(written: int, total: int) -> None:
        if written > share * total:
            saving.cancel()

    saving = client.maintenance.snapshot(path, progress=cancel)
    if not share:
        saving.cancel()
    with pytest.raises(CancelledError):
        await soon(saving)
    await _until(lambda: untouched(path))
    assert client.connection_count == 0


@ONE_VERSION
@ensureDeferred
async def test_stop_service_ends_it_and_waits_until_the_part_is_gone(
    stocked: EmbeddedEtcd, make_client: MakeClient, path: Path
) -> None:
    client = make_client(endpoints=stocked.endpoint)
    stopping: list[Deferred[None]] = []

    def stop(written: int, _total: int) -> None:
        if written > 1_000_000 and not stopping:
            stopping.append(client.stopService())

    saving = client.maintenance.snapshot(path, progress=stop)
    with pytest.raises(ServiceStopped, match=r"stopped while Maintenance\.Snapshot was under way"):
        await soon(saving)
    await soon(stopping[0])
    assert untouched(path)
    with pytest.raises(ServiceStopped, match=r"stopped before Maintenance\.Snapshot"):
        await client.maintenance.snapshot(path)


@ONE_VERSION
@ensureDeferred
async def test_what_progress_raises_ends_it(stocked: EmbeddedEtcd, make_client: MakeClient, path: Path) -> None:
    client = make_client(endpoints=stocked.endpoint)

    def progress(_written: int, _total: int) -> None:
        msg = "the caller's own"
        raise LookupError(msg)

    with pytest.raises(LookupError, match="the caller's own"):
        await soon(client.maintenance.snapshot(path, progress=progress))
    assert untouched(path)


# --- users ----------------------------------------------------------------------------------------------------------


@ensureDeferred
async def test_with_users_only_root_gets_one_and_a_stale_token_is_renewed(
    fresh_etcd: FreshEtcd, make_client: MakeClient, path: Path
) -> None:
    server = await fresh_etcd(extra_args=(users.CHEAP,))
    await users.set_up(server)
    nobody = make_client(endpoints=server.endpoint)
    user = make_client(endpoints=server.endpoint, **users.USER)
    root = make_client(endpoints=server.endpoint, **users.ROOT)
    with pytest.raises(UserEmpty):
        await soon(nobody.maintenance.snapshot(path))
    with pytest.raises(PermissionDenied, match="or the role root"):
        await soon(user.maintenance.snapshot(path))
    assert untouched(path)
    assert is_whole(path, await soon(root.maintenance.snapshot(path)))
    # The same password again: etcd forgets all tokens of the user.
    another = make_client(endpoints=server.endpoint, **users.ROOT)
    await another.auth.user_change_password("root", users.ROOT["password"])
    assert is_whole(path, await soon(root.maintenance.snapshot(path)))


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "options", "kind", "text"),
    [
        ((5,), {}, TypeError, "path must be a str or a Path, not int"),
        (("",), {}, InvalidSettings, "path is ''"),
        (("p",), {"endpoint": 5}, TypeError, "endpoint must be a member's URL"),
        (("p", "http://a/b"), {}, InvalidSettings, "has something behind HOST:PORT"),
        (("p", "http://a,http://b"), {}, InvalidSettings, "names several members"),
        (("p",), {"progress": 5}, TypeError, "progress must be a function that takes two numbers, not int"),
        (("p",), {"timeout": 0}, ValueError, "timeout must be more than 0 seconds, and finite, not 0"),
        (("p",), {"timeout": math.nan}, ValueError, "timeout must be more than 0 seconds"),
        (("p",), {"timeout": "5"}, TypeError, "timeout must be a number of seconds, not str"),
    ],
)
def test_what_cannot_be_used_is_named_at_once(
    client: EtcdClient, arguments: tuple[Any, ...], options: dict[str, Any], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text):
        client.maintenance.snapshot(*arguments, **options)


@ensureDeferred
async def test_a_reactor_without_threads_is_named() -> None:
    client = EtcdClient(Clock())
    with pytest.raises(TypeError, match="a snapshot needs a reactor with threads, which Clock does not have"):
        client.maintenance.snapshot("p")
    await client.stopService()
