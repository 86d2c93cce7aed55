"""Answers of etcd's, spoiled in all the ways that a random source says."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from random import Random
from typing import Any

_HEADER = {"cluster_id": "14841639068965178418", "member_id": "10276657743932975437", "revision": "7", "raft_term": "2"}
_KV = {"key": "az==", "create_revision": "3", "mod_revision": "7", "version": "2", "value": "djE="}

#: A good answer of each kind; of a stream, its lines.
ANSWERS: dict[str, list[Any]] = {
    "get": [{"header": _HEADER, "kvs": [{**_KV, "key": "aw=="}], "count": "1"}],
    "put": [{"header": _HEADER}],
    "txn": [{"header": _HEADER, "succeeded": True, "responses": [{"response_put": {"header": {"revision": "7"}}}]}],
    "delete": [{"header": _HEADER, "deleted": "1"}],
    "lease": [{"header": _HEADER, "ID": "7587869134", "TTL": "60"}],
    "status": [{"header": _HEADER, "version": "3.5.16", "leader": "10276657743932975437", "dbSize": "20480"}],
    "error": [{"code": 11, "message": "etcdserver: mvcc: required revision has been compacted"}],
    "watch": [
        {"result": {"header": _HEADER, "created": True}},
        {"result": {"header": _HEADER, "events": [{"kv": {**_KV, "key": "aw==", "mod_revision": "8"}}]}},
        {"result": {"header": _HEADER, "events": [{"type": "DELETE", "kv": {"key": "aw==", "mod_revision": "9"}}]}},
        {"error": {"grpc_code": 14, "http_code": 503, "message": "etcdserver: no leader"}},
    ],
}

#: What can stand where something else should.
_STRANGE: tuple[Any, ...] = (
    None, True, -1, 0, 2**63, 2**64, -(2**70), 1.5, 1e308, "", "-1", "nan", "x" * 300, "!!!", "aw", "\ud800", [], [[]],
    {}, {"a": {}}, [None], "\u0000", "1e9", "9" * 400,
)  # fmt: skip
_STATUSES = (
    b"200 OK", b"100 Continue", b"204 No Content", b"206 Partial Content", b"301 Moved", b"302 Found", b"304 x",
    b"307 Temporary Redirect", b"308 Permanent Redirect", b"400 Bad Request", b"401 Unauthorized", b"404 Not Found",
    b"405 Method Not Allowed", b"421 Misdirected", b"429 Too Many", b"500 Internal", b"502 Bad", b"503", b"504 x",
    b"999 ?", b"20 OK", b"OK", b"-1 x", b"200", b"101 Switching Protocols",
)  # fmt: skip
_HEADERS = (
    b"Content-Type: text/html", b"Content-Type: application/json; charset=utf-16", b"Content-Encoding: gzip",
    b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked, chunked", b"Location: /v3/kv/range", b"Location: http://[",
    b"Content-Length: -5", b"Content-Length: 99999999999999999999", b"Content-Length: 0", b"Content-Length: 1, 2",
    b"Content-Length: x", b"Connection: close", b"Connection: upgrade", b"Server: nginx/1.22.1", b": empty", b"none",
    b" folded: x", b"X: \xff\xfe", b"Set-Cookie: a=b; Path=/", b"Expect: 100-continue", b"Trailer: X",
)  # fmt: skip
_DEPTH = 100_000
_ENDLESS = 70_000


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:  # noqa: ANN401 - any JSON
    """The paths to all that is in it."""
    found = [path]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        found += _places(each, (*path, key))
    return found


def _with(value: Any, path: tuple[Any, ...], new: Any) -> Any:  # noqa: ANN401 - any JSON
    """The same with something else at one place."""
    if not path:
        return new
    changed = copy.deepcopy(value)
    at = changed
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = new
    return changed


def _strange_field(random: Random, body: bytes) -> bytes:
    lines = body.split(b"\n")
    number = random.randrange(len(lines))
    value = json.loads(lines[number] or b"{}")
    lines[number] = json.dumps(_with(value, random.choice(_places(value)), random.choice(_STRANGE))).encode()
    return b"\n".join(lines)


def _cut(random: Random, data: bytes) -> bytes:
    return data[: random.randrange(len(data) + 1)]


def _flipped(random: Random, data: bytes) -> bytes:
    spoiled = bytearray(data or b"x")
    for _ in range(random.choice((1, 1, 2, 8))):
        spoiled[random.randrange(len(spoiled))] ^= 1 << random.randrange(8)
    return bytes(spoiled)


def _inserted(random: Random, data: bytes) -> bytes:
    at = random.randrange(len(data) + 1)
    return data[:at] + random.randbytes(random.choice((1, 3, 30))) + data[at:]


def _dropped(random: Random, data: bytes) -> bytes:
    at = random.randrange(len(data) + 1)
    return data[:at] + data[at + random.choice((1, 3, 30)) :]


def _doubled(random: Random, data: bytes) -> bytes:
    at, length = random.randrange(len(data) + 1), random.randrange(60)
    return data[: at + length] + data[at:]


def _noise(random: Random, data: bytes) -> bytes:
    return random.randbytes(random.choice((0, 1, 20, 400)))


def _deep(random: Random, data: bytes) -> bytes:
    opening = random.choice((b"[", b'{"header":', b'{"result":{"header":'))
    return opening * _DEPTH + data


def _endless(random: Random, data: bytes) -> bytes:
    return data[: random.randrange(len(data) + 1)] + random.choice((b"a", b" ", b"\xff", b"\n", b'"')) * _ENDLESS


def _untouched(random: Random, data: bytes) -> bytes:
    return data


Mutation = Callable[[Random, bytes], bytes]
BYTES: dict[str, Mutation] = {
    "cut": _cut, "flipped": _flipped, "inserted": _inserted, "dropped": _dropped, "doubled": _doubled, "noise": _noise,
}  # fmt: skip
BODIES: dict[str, Mutation] = {
    **BYTES, "strange field": _strange_field, "deep": _deep, "endless": _endless, "untouched": _untouched,
}  # fmt: skip
#: Costly ones come seldom.
_WEIGHTS = {"deep": 1, "endless": 1, "strange field": 20, "untouched": 4}


def spoiled_body(random: Random, kind: str) -> tuple[str, bytes]:
    """A body that is mostly not as it should be, and what was done to it."""
    body = b"\n".join(json.dumps(line).encode() for line in ANSWERS[kind])
    names = list(BODIES)
    name = random.choices(names, [_WEIGHTS.get(each, 6) for each in names])[0]
    return name, BODIES[name](random, body)


def spoiled_answer(random: Random, kind: str) -> tuple[str, bytes]:
    """A whole HTTP answer, and what was done to it."""
    name, body = spoiled_body(random, kind)
    status = random.choice(_STATUSES) if random.random() < 0.15 else b"200 OK"
    headers = [b"Content-Type: application/json"]
    framing = random.choice(("length", "length", "chunked", "none", "wrong"))
    if framing == "chunked":
        headers.append(b"Transfer-Encoding: chunked")
        body = _chunked(random, body)
    elif framing != "none":
        wrong = random.choice((-1, 1, 1000)) if framing == "wrong" else 0
        headers.append(b"Content-Length: %d" % max(0, len(body) + wrong))
    if random.random() < 0.2:
        headers.append(random.choice(_HEADERS))
    if random.random() < 0.01:
        headers.append(b"X-Long: " + b"x" * _ENDLESS)
    random.shuffle(headers)
    answer = b"HTTP/1.1 " + status + b"\r\n" + b"\r\n".join(headers) + b"\r\n\r\n" + body
    if random.random() < 0.25:
        how = random.choice(list(BYTES))
        return f"{name}, then {how}", BYTES[how](random, answer)
    return name, answer


def _chunked(random: Random, body: bytes) -> bytes:
    if random.random() < 0.1:
        size = random.choice((b"-1", b"zz", b"ffffffffffffffff", b"", b"1;x=" + b"y" * 3000, b" 5"))
        return size + b"\r\n" + body
    at = random.randrange(len(body) + 1)
    parts = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:at], body[at:]) if part)
    return parts + (b"0\r\n\r\n" if random.random() < 0.8 else b"")


def pieces(random: Random, data: bytes) -> list[bytes]:
    """The same, as reads from a socket could bring it."""
    count = random.choice((1, 1, 2, 5))
    ends = sorted(random.randrange(len(data) + 1) for _ in range(count - 1))
    return [data[start:end] for start, end in zip([0, *ends], [*ends, len(data)], strict=True)]
