"""Keys as etcd sees them: byte strings and ranges of byte strings."""

from __future__ import annotations

import msgspec

#: As a range end: to the end of the key space.
TO_THE_END = b"\x00"
#: As a key: the lowest key that etcd has.
FIRST_KEY = b"\x00"


def to_bytes(value: str | bytes, what: str = "key") -> bytes:
    """
    What a caller gave, as the bytes that etcd stores: ``str`` is encoded as UTF-8.

    :param what: the name of the argument, for the error.
    :raises TypeError: for anything but ``str`` and ``bytes``.
    """
    if isinstance(value, str):
        return value.encode("utf-8")
    if isinstance(value, bytes):
        return value
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    msg = f"{what} must be str or bytes, not {type(value).__name__}"
    raise TypeError(msg)


def prefix_end(prefix: bytes) -> bytes:
    r"""
    The first key after all keys that begin with a prefix, exact for every byte string.

    ``a`` gives ``b``, ``a\xff`` gives ``b``; an empty prefix and one of nothing but ``\xff`` give :data:`TO_THE_END`.
    """
    stem = prefix.rstrip(b"\xff")
    if not stem:
        return TO_THE_END
    return stem[:-1] + bytes((stem[-1] + 1,))


class KeyRange(msgspec.Struct, frozen=True):
    """
    One key or a range of keys, as the ``key`` and ``range_end`` of etcd's requests say it.

    :ivar key: the key, or the first of the range.
    :ivar range_end: the first key after the range; empty for one key, :data:`TO_THE_END` for all from ``key`` on.
    """

    key: bytes
    range_end: bytes = b""

    @classmethod
    def of(
        cls,
        key: str | bytes,
        *,
        prefix: bool = False,
        from_key: bool = False,
        range_end: str | bytes | None = None,
    ) -> KeyRange:
        """
        The range that a caller means.

        :param prefix: all keys that begin with ``key``; all keys there are where it is empty.
        :param from_key: ``key`` and all keys after it.
        :param range_end: ``key`` and all keys before this one.
        :raises ValueError: where more than one of the three is given, or ``range_end`` is empty.
        """
        first = to_bytes(key)
        if bool(prefix) + bool(from_key) + (range_end is not None) > 1:
            msg = "give one of prefix, from_key and range_end, not several"
            raise ValueError(msg)
        if prefix:
            return cls(first or FIRST_KEY, prefix_end(first))
        if from_key:
            return cls(first or FIRST_KEY, TO_THE_END)
        if range_end is not None:
            end = to_bytes(range_end, "range_end")
            if not end:
                msg = "range_end is empty, which etcd takes for one key; leave it out, or give from_key=True"
                raise ValueError(msg)
            return cls(first, end)
        return cls(first)

    @property
    def prefix(self) -> bytes | None:
        """What all keys of the range begin with, where it is all that do, empty for all keys; None where it is not."""
        if self.key in (b"", FIRST_KEY) and self.range_end == TO_THE_END:
            return b""
        return self.key if self.range_end and self.range_end == prefix_end(self.key) else None

    def __str__(self) -> str:
        prefix = self.prefix
        if not self.range_end:
            return f"the key {self.key!r}"
        if prefix is not None:
            return f"all keys that begin with {prefix!r}" if prefix else "all keys"
        if self.range_end == TO_THE_END:
            return f"all keys from {self.key!r} on"
        return f"all keys from {self.key!r} to before {self.range_end!r}"

    def __contains__(self, key: bytes) -> bool:
        if not self.range_end:
            return key == self.key
        return key >= self.key and (self.range_end == TO_THE_END or key < self.range_end)
