from __future__ import annotations

import copy
import pickle

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.schema.strategies import PROFILE
from twisted_etcd.schema import auth, election, kv, maintenance
from twisted_etcd.schema.common import Message, ProtoEnum
from twisted_etcd.schema.kv import Event, EventType, KeyValue, PutRequest, RangeRequest, RangeResponse, SortOrder
from twisted_etcd.schema.maintenance import AlarmType

SECRET = "correct-horse"

WITH_SECRETS: list[Message] = [
    KeyValue(key=b"k", value=SECRET.encode()),
    PutRequest(key=b"k", value=SECRET.encode()),
    kv.Compare(key=b"k", target=kv.CompareTarget.VALUE, value=SECRET.encode()),
    election.CampaignRequest(b"k", 1, SECRET.encode()),
    election.ProclaimRequest(election.LeaderKey(key=b"k"), SECRET.encode()),
    maintenance.SnapshotResponse(blob=SECRET.encode(), version="k"),
    auth.AuthenticateRequest("k", SECRET),
    auth.AuthenticateResponse(token=SECRET),
    auth.AuthUserAddRequest(name="k", password=SECRET, hashedPassword=SECRET),
    auth.AuthUserChangePasswordRequest("k", SECRET, SECRET),
    auth.User(name=b"k", password=SECRET.encode()),
]


@pytest.mark.parametrize("message", WITH_SECRETS, ids=lambda message: type(message).__name__)
def test_no_repr_shows_a_value_a_password_or_a_token(message: Message) -> None:
    wrapped = RangeResponse(kvs=(message,))  # type: ignore[arg-type]
    for shown in (repr(message), str(message), f"{message}", repr(wrapped), repr(message.__rich_repr__())):
        assert SECRET not in shown
        assert "<hidden>" in shown or f"<{len(SECRET)} bytes>" in shown


def test_a_repr_shows_keys_and_what_is_not_at_its_default() -> None:
    assert repr(RangeRequest(key=b"a", limit=3)) == "RangeRequest(key=b'a', limit=3)"
    assert repr(KeyValue(key=b"a", value=b"")) == "KeyValue(key=b'a')"
    assert repr(KeyValue()) == "KeyValue()"


def test_a_repr_shows_that_a_value_is_set_and_how_long_it_is() -> None:
    assert repr(kv.Compare(key=b"a", value=b"")) == "Compare(key=b'a', value=<0 bytes>)"
    assert repr(kv.Compare(key=b"a", value=b"xyz")) == "Compare(key=b'a', value=<3 bytes>)"


def test_a_message_cannot_be_changed_and_has_a_hash() -> None:
    message = RangeResponse(kvs=(KeyValue(key=b"a"),))
    with pytest.raises(AttributeError):
        message.count = 1  # type: ignore[misc]
    assert {message: 1}[RangeResponse(kvs=(KeyValue(key=b"a"),))] == 1


def test_an_enum_is_shown_by_its_name() -> None:
    assert str(SortOrder.ASCEND) == f"{SortOrder.ASCEND}" == "ASCEND"


@PROFILE
@given(st.text(min_size=1).filter(lambda name: name not in EventType.__members__))
def test_an_unknown_name_in_an_answer_is_kept_and_equals_no_known_one(name: str) -> None:
    body = msgspec.json.encode({"type": name, "kv": {"key": b"a"}})
    event = msgspec.json.decode(body, type=Event)
    assert event.kv.key == b"a"
    assert isinstance(event.type, EventType)
    assert event.type.value == event.type.name == name
    assert event.type not in (EventType.PUT, EventType.DELETE)
    assert event.type == EventType(name)
    assert hash(event) == hash(msgspec.json.decode(body, type=Event))
    assert copy.deepcopy(event) == pickle.loads(pickle.dumps(event)) == event  # noqa: S301 - our own
    assert msgspec.json.encode(event) == body
    assert list(EventType) == [EventType.PUT, EventType.DELETE]


@pytest.mark.parametrize("value", [1, None, True, 0.5, {}])
def test_an_enum_that_is_no_name_is_refused(value: object) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode({"alarm": value}), type=maintenance.AlarmMember, strict=False)
    with pytest.raises(ValueError, match="not a valid AlarmType"):
        AlarmType(value)


@pytest.mark.parametrize(
    "enum",
    [
        kv.SortOrder,
        kv.SortTarget,
        kv.CompareResult,
        kv.CompareTarget,
        maintenance.AlarmAction,
        maintenance.DowngradeAction,
    ],
)
def test_an_unknown_name_in_a_request_is_an_error(enum: type[ProtoEnum]) -> None:
    with pytest.raises(ValueError, match="ASCENDING"):
        enum("ASCENDING")
