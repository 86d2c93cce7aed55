"""
What all of etcd's messages share.

The Structs of this package are etcd's protobuf messages as its JSON gateway writes them, so their fields have the
proto's own names (``ID``, ``TTL``, ``grantedTTL``, ``mod_revision``). The gateway leaves a field out that has its zero
value; every field has that value as its default here, and is left out in turn when a request is sent. It writes no
JSON ``null`` on any server that was tried, so ``null`` is accepted for optional fields alone.
"""

from __future__ import annotations

from enum import Enum
from typing import ClassVar

from twisted_etcd.discreet import Discreet


# gc=False: what they refer to is made before them and cannot refer back, so that the collector need not look at them,
# of which an answer, or many callers at a time, can have many thousands.
class Message(Discreet, frozen=True, omit_defaults=True, gc=False):
    """
    The base of all messages: immutable, hashable, compared by content.

    Its ``repr`` can be logged: it shows no value of a key, no password and no token, but keys it does show. Fields at
    their defaults are left out of it.

    :cvar secret_fields: the names of the fields whose contents ``repr`` hides, in whichever message they are.
    """

    secret_fields: ClassVar[frozenset[str]] = frozenset({"value", "blob", "password", "hashedPassword", "token"})


class ProtoEnum(str, Enum):
    """
    The base of the enumerations, whose values are the names that the gateway reads and writes.

    A name that is not listed is an error here, in a request above all: newer gateways ignore an enum name that they
    do not know, and the option would be lost in silence.
    """

    def __str__(self) -> str:
        return str(self.value)


class OpenProtoEnum(ProtoEnum):
    """
    An enumeration that occurs in answers, where a newer server may use names that are not listed here.

    Such a name becomes a member of its own, unlisted, which equals no listed one: the rest of the answer stays
    readable, and the name can be shown. (A gateway writes a number only where its own server does not know the name;
    that is refused.)
    """

    @classmethod
    def _missing_(cls, value: object) -> OpenProtoEnum | None:
        if not isinstance(value, str):
            return None
        member = str.__new__(cls, value)
        member._name_ = value
        member._value_ = value
        return member


class ResponseHeader(Message, frozen=True, kw_only=True):
    """
    Who answered, and at which point of the cluster's history.

    Zeros stand for what was left out: on 3.4 the answers about alarms have no header, those of defragment have none on
    any server, and those of the cluster service have no revision.

    :ivar cluster_id: the cluster of the member that answered.
    :ivar member_id: that member.
    :ivar revision: the store's revision when the request was applied.
    :ivar raft_term: the Raft term then.
    """

    cluster_id: int = 0
    member_id: int = 0
    revision: int = 0
    raft_term: int = 0


class Response(Message, frozen=True):
    """
    The base of all answers that have a header.

    :ivar header: who answered, and when in the cluster's history.
    """

    header: ResponseHeader = ResponseHeader()
