"""What is told of configuration that changes."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import ClassVar

from twisted_etcd.discreet import Discreet


class ChangeType(str, enum.Enum):
    """How a configuration value changed."""

    CREATED = "created"
    MODIFIED = "modified"
    DELETED = "deleted"


class ConfigChange(Discreet, frozen=True, kw_only=True):
    """
    One change of one configuration value.

    :ivar key: its path, without the prefix.
    :ivar revision: etcd's revision of the change.
    """

    secret_fields: ClassVar[frozenset[str]] = frozenset({"new_value", "old_value"})

    key: str
    new_value: bytes | None
    old_value: bytes | None
    change_type: ChangeType
    revision: int


def config_change(key: str, old: bytes | None, new: bytes | None, revision: int) -> ConfigChange:
    """The change from one value to another; None stands for no value."""
    set_to = ChangeType.CREATED if old is None else ChangeType.MODIFIED
    change_type = ChangeType.DELETED if new is None else set_to
    return ConfigChange(key=key, new_value=new, old_value=old, change_type=change_type, revision=revision)


class ConfigChanges(Discreet, frozen=True, kw_only=True):
    """
    Changes that are told together: one for each key, from what it was before the first to what it is after the last.

    They can be gone through, and ``key in changes`` says whether a key is among them.

    :ivar changes: in the order of their keys. A key that ended as it began is not among them.
    :ivar first_revision: etcd's revision of the first change that went into them.
    :ivar revision: that of the last one. It is the lower one where the cluster was set back to an older state.
    """

    changes: tuple[ConfigChange, ...]
    first_revision: int
    revision: int

    def __iter__(self) -> Iterator[ConfigChange]:
        return iter(self.changes)

    def __len__(self) -> int:
        return len(self.changes)

    def __contains__(self, key: object) -> bool:
        return any(change.key == key for change in self.changes)

    def __getitem__(self, key: str) -> ConfigChange:
        for change in self.changes:
            if change.key == key:
                return change
        raise KeyError(key)
