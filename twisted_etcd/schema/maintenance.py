"""Looking after members: the messages of etcd's Maintenance service. All sizes are in bytes."""

from __future__ import annotations

from twisted_etcd.schema.common import Message, OpenProtoEnum, ProtoEnum, Response

# --- alarms ---------------------------------------------------------------------------------------------------------


class AlarmType(OpenProtoEnum):
    """What an alarm is about; NONE, in a request, is all of them."""

    NONE = "NONE"
    NOSPACE = "NOSPACE"
    CORRUPT = "CORRUPT"


class AlarmAction(ProtoEnum):
    """What to do about alarms."""

    GET = "GET"
    ACTIVATE = "ACTIVATE"
    DEACTIVATE = "DEACTIVATE"


class AlarmRequest(Message, frozen=True):
    """
    Ask for alarms, raise one or take one back.

    :ivar action: which of the three.
    :ivar memberID: the member concerned; 0 for all.
    :ivar alarm: the kind concerned.
    """

    action: AlarmAction = AlarmAction.GET
    memberID: int = 0
    alarm: AlarmType = AlarmType.NONE


class AlarmMember(Message, frozen=True):
    """
    An alarm of one member.

    :ivar memberID: which member.
    :ivar alarm: what kind.
    """

    memberID: int = 0
    alarm: AlarmType = AlarmType.NONE


class AlarmResponse(Response, frozen=True):
    """
    The alarms that the request was about.

    :ivar alarms: those raised, or those that were just changed.
    """

    alarms: tuple[AlarmMember, ...] = ()


# --- status ---------------------------------------------------------------------------------------------------------


class StatusRequest(Message, frozen=True):
    """Ask the member that is reached how it is."""


class DowngradeInfo(Message, frozen=True):
    """
    Whether the cluster is on its way to an older version.

    :ivar enabled: it is.
    :ivar targetVersion: to which.
    """

    enabled: bool = False
    targetVersion: str = ""


class StatusResponse(Response, frozen=True, kw_only=True):
    """
    How a member is, by its own account.

    :ivar version: of the program it runs.
    :ivar dbSize: what its database takes on disk.
    :ivar leader: the id of the leader; 0 while it sees none.
    :ivar raftIndex: the last log entry that it knows to be committed.
    :ivar raftTerm: the Raft term.
    :ivar raftAppliedIndex: the last log entry that it has applied.
    :ivar errors: what is wrong: alarms, no leader; empty where nothing is.
    :ivar dbSizeInUse: what its database would take after a defragmentation.
    :ivar isLearner: it follows without a vote.
    :ivar storageVersion: of its database's format (since 3.6).
    :ivar dbSizeQuota: how large its database may become (since 3.6).
    :ivar downgradeInfo: about a downgrade (since 3.6); None where the server sends none.
    """

    version: str = ""
    dbSize: int = 0
    leader: int = 0
    raftIndex: int = 0
    raftTerm: int = 0
    raftAppliedIndex: int = 0
    errors: tuple[str, ...] = ()
    dbSizeInUse: int = 0
    isLearner: bool = False
    storageVersion: str = ""
    dbSizeQuota: int = 0
    downgradeInfo: DowngradeInfo | None = None


# --- the database ---------------------------------------------------------------------------------------------------


class DefragmentRequest(Message, frozen=True):
    """Give the free space of the member's database back to its disk. The member serves nothing meanwhile."""


class DefragmentResponse(Response, frozen=True):
    """The member's database is defragmented."""


class HashRequest(Message, frozen=True):
    """Ask for a checksum of the member's whole database, for tests of etcd's own."""


class HashResponse(Response, frozen=True):
    """
    A checksum of the database.

    :ivar hash: 32 bits.
    """

    hash: int = 0


class HashKVRequest(Message, frozen=True):
    """
    Ask for a checksum of the member's keys: equal on all members at one revision.

    Servers without this path (3.4.23, 3.5.1) answer 404.

    :ivar revision: up to which; 0 for the newest.
    """

    revision: int = 0


class HashKVResponse(Response, frozen=True, kw_only=True):
    """
    A checksum of the keys.

    :ivar hash: 32 bits.
    :ivar compact_revision: from which revision on it counts; -1 where nothing was compacted. Comparable only where
        equal.
    :ivar hash_revision: up to which revision it counts; 0 where the server does not say.
    """

    hash: int = 0
    compact_revision: int = 0
    hash_revision: int = 0


class SnapshotRequest(Message, frozen=True):
    """Ask for a copy of the member's database."""


class SnapshotResponse(Response, frozen=True, kw_only=True):
    """
    A piece of a snapshot. The last 32 bytes of the whole are the SHA-256 of what is before them.

    :ivar remaining_bytes: what is still to come after this piece.
    :ivar blob: the piece.
    :ivar version: of the server that made it (since 3.6).
    """

    remaining_bytes: int = 0
    blob: bytes = b""
    version: str = ""


# --- leader and version ---------------------------------------------------------------------------------------------


class MoveLeaderRequest(Message, frozen=True):
    """
    Make another member the leader; only the leader can.

    :ivar targetID: the member that is to lead.
    """

    targetID: int = 0


class MoveLeaderResponse(Response, frozen=True):
    """The leadership was handed over."""


class DowngradeAction(ProtoEnum):
    """What to do about a downgrade."""

    VALIDATE = "VALIDATE"
    ENABLE = "ENABLE"
    CANCEL = "CANCEL"


class DowngradeRequest(Message, frozen=True):
    """
    Check, begin or cancel the cluster's downgrade (since 3.5; older servers answer 404).

    :ivar action: which of the three.
    :ivar version: the version to go down to.
    """

    action: DowngradeAction = DowngradeAction.VALIDATE
    version: str = ""


class DowngradeResponse(Response, frozen=True):
    """
    What was asked was done.

    :ivar version: the cluster's version now.
    """

    version: str = ""


class DowngradeVersionTestRequest(Message, frozen=True):
    """
    For tests of etcd's own. No call of the gateway carries it.

    :ivar ver: a version.
    """

    ver: str = ""
