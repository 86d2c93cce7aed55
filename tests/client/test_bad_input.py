"""What is wrong before anything is sent, and what it is called."""

from __future__ import annotations

import math
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor

from tests.client.conftest import MakeClient
from twisted_etcd.client import compare, op
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.errors import InvalidSettings, ServiceStopped
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.kv import PutRequest, RangeRequest
from twisted_etcd.schema.watch import WatchRequest


@pytest.fixture
def loose(client: EtcdClient) -> Any:  # noqa: ANN401
    """The client, as one sees it who has no type checker."""
    return client


@pytest.mark.parametrize(
    ("method", "arguments", "options", "text"),
    [
        ("get", (5,), {}, "key must be str or bytes, not int"),
        ("get", (None,), {}, "key must be str or bytes, not NoneType"),
        ("get", ("k",), {"range_end": 5}, "range_end must be str or bytes, not int"),
        ("get", ("k",), {"limit": "5"}, "limit must be an int, not str"),
        ("get", ("k",), {"limit": True}, "limit must be an int, not bool"),
        ("get", ("k",), {"revision": 1.5}, "revision must be an int, not float"),
        ("get", ("k",), {"min_mod_revision": None}, "min_mod_revision must be an int, not NoneType"),
        ("get", ("k",), {"max_mod_revision": "1"}, "max_mod_revision must be an int, not str"),
        ("get", ("k",), {"min_create_revision": "1"}, "min_create_revision must be an int, not str"),
        ("get", ("k",), {"max_create_revision": "1"}, "max_create_revision must be an int, not str"),
        ("get", ("k",), {"limt": 5}, "unexpected keyword argument 'limt'"),
        ("put", (["k"], "v"), {}, "key must be str or bytes, not list"),
        ("put", ("k", 5), {}, "value must be str or bytes, not int"),
        ("put", ("k", "v"), {"lease": "77"}, "lease must be an int, not str"),
        ("put", ("k", "v"), {"prefix": True}, "unexpected keyword argument 'prefix'"),
        ("delete", (5,), {}, "key must be str or bytes, not int"),
        ("delete", ("k",), {"limit": 5}, "unexpected keyword argument 'limit'"),
        ("compact", ("5",), {}, "revision must be an int, not str"),
        ("scan", (5,), {}, "key must be str or bytes, not int"),
        ("scan", ("k",), {"page": "5"}, "page must be an int, not str"),
        ("scan", ("k",), {"revision": "5"}, "revision must be an int, not str"),
        ("scan", ("k",), {"limit": 5}, "unexpected keyword argument 'limit'"),
        # It would tear the pages apart.
        ("scan", ("k",), {"sort_order": "DESCEND"}, "unexpected keyword argument 'sort_order'"),
        ("watch", (5,), {}, "key must be str or bytes, not int"),
        ("watch", ("k",), {"start_revision": "5"}, "start_revision must be an int, not str"),
        ("watch", ("k",), {"revision": 5}, "unexpected keyword argument 'revision'"),
        ("lease", ("5",), {}, "ttl must be an int, not str"),
        ("lease", (2.5,), {}, "ttl must be an int, not float"),
        ("lease", (5,), {"lease_id": "7"}, "lease_id must be an int, not str"),
        ("lease_grant", ("5",), {}, "ttl must be an int, not str"),
        ("lease_revoke", ("5",), {}, "lease_id must be an int, not str"),
        ("lease_time_to_live", ("5",), {}, "lease_id must be an int, not str"),
    ],
)
def test_a_wrong_type_or_an_unknown_option_is_named_at_once(
    loose: Any,  # noqa: ANN401
    method: str,
    arguments: tuple[Any, ...],
    options: dict[str, Any],
    text: str,
) -> None:
    with pytest.raises(TypeError, match=text):
        getattr(loose, method)(*arguments, **options)


@ensureDeferred
async def test_a_lease_in_place_of_its_id_is_named(loose: Any) -> None:  # noqa: ANN401
    lease = await loose.lease(60)
    with pytest.raises(TypeError, match="lease must be an int, not Lease"):
        loose.put("k", "v", lease=lease)


@pytest.mark.parametrize("method", ["get", "delete", "watch", "scan"])
@pytest.mark.parametrize(
    "options",
    [{"prefix": True, "range_end": "z"}, {"from_key": True, "prefix": True}, {"from_key": True, "range_end": ""}],
)
def test_a_prefix_and_a_range_end_are_not_both_meant(loose: Any, method: str, options: dict[str, Any]) -> None:  # noqa: ANN401
    with pytest.raises(ValueError, match="give one of prefix, from_key and range_end, not several"):
        getattr(loose, method)("a", **options)


def test_what_is_no_choice_of_etcds_is_named(loose: Any) -> None:  # noqa: ANN401
    with pytest.raises(ValueError, match="'UP' is not a valid SortOrder"):
        loose.get("k", sort_order="UP")
    with pytest.raises(ValueError, match="'AGE' is not a valid SortTarget"):
        loose.get("k", sort_target="AGE")
    with pytest.raises(ValueError, match="'NOGET' is not a valid FilterType"):
        loose.watch("k", filters=["NOGET"])


@pytest.mark.parametrize("page", [0, -1])
def test_a_page_holds_something(loose: Any, page: int) -> None:  # noqa: ANN401
    with pytest.raises(ValueError, match=f"page must be at least 1, not {page}"):
        loose.scan("k", page=page)


@pytest.mark.parametrize("make", [compare.value, compare.version, compare.create_revision, compare.lease])
def test_an_operator_that_etcd_does_not_have_is_named(make: Any) -> None:  # noqa: ANN401
    with pytest.raises(ValueError, match="'==' is no comparison of etcd's; use one of =, !=, <, >"):
        make("k", "==", 0)


def test_an_operand_of_the_wrong_type_is_named() -> None:
    make_value: Any = compare.value
    make_version: Any = compare.version
    with pytest.raises(TypeError, match="operand must be str or bytes, not int"):
        make_value("k", "=", 5)
    with pytest.raises(TypeError, match="operand must be an int, not str"):
        make_version("k", "=", "5")
    with pytest.raises(TypeError, match="unexpected keyword argument 'limit'"):
        make_version("k", "=", 5, limit=1)


def test_operations_are_checked_like_the_clients_methods() -> None:
    loose_op: Any = op
    with pytest.raises(TypeError, match="limit must be an int, not str"):
        loose_op.get("k", limit="1")
    with pytest.raises(TypeError, match="value must be str or bytes, not int"):
        loose_op.put("k", 5)
    with pytest.raises(TypeError, match="unexpected keyword argument 'keys_only'"):
        loose_op.delete("k", keys_only=True)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"endpoints": ""}, "no endpoint is given; write for example http://127.0.0.1:2379"),
        ({"endpoints": []}, "no endpoint is given"),
        ({"endpoints": "ftp://host"}, "endpoint 'ftp://host' has the scheme 'ftp'"),
        ({"endpoints": "http://host:port"}, "endpoint 'http://host:port' is no URL"),
        ({"endpoints": ["http://host/v3"]}, "has something behind HOST:PORT"),
        ({"endpoints": "http://me:secret@host"}, "the endpoint of host 'host' has a user in it"),
        ({"password": "p"}, "username and password belong together: give both or neither"),
        ({"username": "u"}, "username and password belong together: give both or neither"),
        ({"request_timeout": 0}, "request_timeout must be more than 0 seconds, and finite, not 0"),
        ({"request_timeout": math.nan}, "request_timeout must be more than 0 seconds, and finite, not nan"),
        ({"connect_timeout": -1}, "connect_timeout must be more than 0 seconds, and finite, not -1"),
        ({"max_connections": 0}, "max_connections must be at least 1, not 0"),
        ({"own_streams": -1}, "own_streams must be at least 0, not -1"),
        ({"stop_timeout": -1}, "stop_timeout must be at least 0 seconds, and finite, not -1"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_used_are_named_and_no_secret_is_shown(options: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidSettings) as raised:
        EtcdClient(**{"reactor": reactor, **options})
    assert text in str(raised.value)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"reactor": "http://host"}, "the first argument of EtcdClient must be the reactor, not str"),
        ({"connect_timeout": "3"}, "connect_timeout must be a number of seconds, not str"),
        ({"request_timeout": None}, "request_timeout must be a number of seconds, not NoneType"),
        ({"max_connections": 1.5}, "max_connections must be an int, not float"),
        ({"batch": 1}, "batch must be True or False, not int"),
        ({"tls": {"ca_file": "ca.pem"}}, r"tls must be TLSSettings\(...\), not dict"),
        # etcd would repeat it in its answer.
        ({"username": "me", "password": 1234}, "password must be a str, not int$"),
        ({"username": 1, "password": "p"}, "username must be a str, not int"),
    ],
    ids=str,
)
def test_settings_of_the_wrong_type_are_named(options: dict[str, Any], text: str) -> None:
    with pytest.raises(TypeError, match=text):
        EtcdClient(**{"reactor": reactor, **options})


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((compare.version("k", "=", 0),), "compare must be a list of comparisons such as .*, not Compare"),
        ((["k"],), "compare must be a list of comparisons such as .*, and has one str in it"),
        (([], op.put("k", "v")), "success must be a list of operations such as .*, not RequestOp"),
        (
            ([], [], [compare.version("k", "=", 0)]),
            "failure must be a list of operations such as .*, and has one Compare in it",
        ),
        (([], [None]), "success must be a list of operations such as .*, and has one NoneType in it"),
    ],
)
def test_a_transaction_of_something_else_is_named(loose: Any, arguments: tuple[Any, ...], text: str) -> None:  # noqa: ANN401
    with pytest.raises(TypeError, match=text):
        loose.txn(*arguments)


@pytest.mark.parametrize("timeout", [0, -1, math.inf])
def test_a_timeout_that_cannot_be_used_is_named(loose: Any, timeout: float) -> None:  # noqa: ANN401
    for method, arguments in (("get", ("k",)), ("put", ("k", "v")), ("lease", (5,))):
        with pytest.raises(ValueError, match=f"timeout must be more than 0 seconds, and finite, not {timeout}"):
            getattr(loose, method)(*arguments, timeout=timeout)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"callback": "print"}, TypeError, "callback must be a function that takes a WatchBatch, not str"),
        ({"start_revision": -1}, ValueError, "start_revision must be at least 0, not -1"),
        ({"max_backlog": 0}, ValueError, "max_backlog must be at least 1, not 0"),
    ],
)
def test_what_no_watch_can_do_is_named(
    loose: Any,  # noqa: ANN401
    options: dict[str, Any],
    error: type[Exception],
    text: str,
) -> None:
    with pytest.raises(error, match=text):
        loose.watch("k", **options)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("KV.Range", RangeRequest()), "the first argument of call is one of twisted_etcd.schema.rpcs, not str"),
        ((rpcs.RANGE, {"key": "k"}), "KV.Range takes RangeRequest, not dict"),
        ((rpcs.RANGE, PutRequest()), "KV.Range takes RangeRequest, not PutRequest"),
        ((rpcs.WATCH, WatchRequest()), "Watch.Watch is a stream, and call is for calls with one answer"),
    ],
    ids=["rpc", "dict", "request", "stream"],
)
def test_a_call_that_is_none_is_named(loose: Any, arguments: tuple[Any, ...], text: str) -> None:  # noqa: ANN401
    with pytest.raises(TypeError, match=text):
        loose.call(*arguments)


@ensureDeferred
async def test_a_stopped_client_is_not_started_again(make_client: MakeClient) -> None:
    client = make_client()
    await client.stopService()
    with pytest.raises(ServiceStopped, match="was stopped and cannot be started again: make a new one"):
        client.startService()


@ensureDeferred
async def test_after_the_stop_every_call_says_so(make_client: MakeClient) -> None:
    client = make_client()
    await client.stopService()
    for asking in (
        client.get("k"),
        client.put("k", "v"),
        client.delete("k"),
        client.txn(),
        client.compact(1),
        client.scan("k").next(),
        client.lease(5),
        client.lease_grant(5),
        client.lease_revoke(5),
        client.lease_time_to_live(5),
        client.leases(),
    ):
        with pytest.raises(ServiceStopped, match="the client was stopped before"):
            await asking
    await client.stopService()
