"""Ranges of keys say what they are."""

from __future__ import annotations

from typing import Any

import pytest

from twisted_etcd.keys import KeyRange


@pytest.mark.parametrize(
    ("key", "options", "prefix", "text"),
    [
        ("a", {}, None, "the key b'a'"),
        ("a", {"prefix": True}, b"a", "all keys that begin with b'a'"),
        (b"a\xff", {"prefix": True}, b"a\xff", r"all keys that begin with b'a\xff'"),
        (b"\xff", {"prefix": True}, b"\xff", r"all keys that begin with b'\xff'"),
        (b"\x00", {"prefix": True}, b"\x00", r"all keys that begin with b'\x00'"),
        ("", {"prefix": True}, b"", "all keys"),
        ("", {"from_key": True}, b"", "all keys"),
        ("a", {"from_key": True}, None, "all keys from b'a' on"),
        ("a", {"range_end": "b"}, b"a", "all keys that begin with b'a'"),
        ("a", {"range_end": "c"}, None, "all keys from b'a' to before b'c'"),
    ],
)
def test_a_range_says_what_it_is_and_knows_its_prefix(
    key: str | bytes, options: dict[str, Any], prefix: bytes | None, text: str
) -> None:
    keys = KeyRange.of(key, **options)
    assert (keys.prefix, str(keys)) == (prefix, text)
