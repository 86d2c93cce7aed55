"""What the ``repr`` of a Struct with secrets shows, and what not."""

from __future__ import annotations

from typing import ClassVar

import msgspec
import pytest

from twisted_etcd.discreet import Discreet


class Account(Discreet, frozen=True, kw_only=True):
    secret_fields: ClassVar[frozenset[str]] = frozenset({"password", "blob", "settings"})

    name: str
    password: object = None
    blob: bytes = b""
    settings: dict[str, str] = msgspec.field(default_factory=dict)
    tags: list[str] = msgspec.field(default_factory=lambda: ["new"])


class Named(Account, frozen=True, kw_only=True):
    """Hides what its base hides."""

    title: str


def test_what_is_at_its_default_is_left_out() -> None:
    assert repr(Account(name="a")) == "Account(name='a')"
    assert repr(Account(name="a", tags=[])) == "Account(name='a', tags=[])"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({"password": "hunter2"}, "password=<hidden>"),
        ({"password": ["hunter2"]}, "password=<hidden>"),
        ({"blob": b"hunter2"}, "blob=<7 bytes>"),
        ({"settings": {"token": "hunter2"}}, "settings={'token': <hidden>}"),
        ({"settings": {}, "password": ""}, "password=<hidden>"),
    ],
)
@pytest.mark.parametrize("kind", [Account, Named])
def test_what_is_secret_is_told_to_be_there(kind: type[Account], given: dict[str, object], shown: str) -> None:
    account = msgspec.convert({"name": "a", "title": "t", **given}, kind)
    assert repr(account) == str(account)
    assert f"name='a', {shown}" in repr(account)
    assert "hunter2" not in repr(account) + repr(account.__rich_repr__()) + repr([account])
    assert tuple(shown.split("=", 1)) in account.__rich_repr__()


def test_a_secret_that_may_be_missing_is_told_to_be() -> None:
    class Change(Discreet, frozen=True):
        secret_fields: ClassVar[frozenset[str]] = frozenset({"old"})

        old: bytes | None

    assert repr(Change(None)) == "Change(old=None)"
