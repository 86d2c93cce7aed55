"""The members of the cluster: the messages of etcd's Cluster service."""

from __future__ import annotations

from twisted_etcd.schema.common import Message, Response


class Member(Message, frozen=True, kw_only=True):
    """
    One member of the cluster.

    :ivar ID: its id.
    :ivar name: its name; empty until it has been started for the first time.
    :ivar peerURLs: where the other members reach it.
    :ivar clientURLs: where it says that clients reach it; empty until it has been started.
    :ivar isLearner: it follows without a vote, and serves almost no request.
    """

    ID: int = 0
    name: str = ""
    peerURLs: tuple[str, ...] = ()
    clientURLs: tuple[str, ...] = ()
    isLearner: bool = False


class MemberAddRequest(Message, frozen=True):
    """
    Make room for a new member.

    :ivar peerURLs: where the others will reach it.
    :ivar isLearner: add it without a vote.
    """

    peerURLs: tuple[str, ...] = ()
    isLearner: bool = False


class MemberAddResponse(Response, frozen=True):
    """
    The member was added; it still has to be started.

    :ivar member: the new one.
    :ivar members: all of them, the new one included.
    """

    member: Member = Member()
    members: tuple[Member, ...] = ()


class MemberRemoveRequest(Message, frozen=True):
    """
    Take a member out of the cluster.

    :ivar ID: which one.
    """

    ID: int = 0


class MemberRemoveResponse(Response, frozen=True):
    """
    The member was removed.

    :ivar members: those that are left.
    """

    members: tuple[Member, ...] = ()


class MemberUpdateRequest(Message, frozen=True):
    """
    Change where a member is reached by the others.

    :ivar ID: which one.
    :ivar peerURLs: its new URLs, all of them.
    """

    ID: int = 0
    peerURLs: tuple[str, ...] = ()


class MemberUpdateResponse(Response, frozen=True):
    """
    The member was changed.

    :ivar members: all of them, as they are now.
    """

    members: tuple[Member, ...] = ()


class MemberListRequest(Message, frozen=True):
    """
    Ask for all members.

    :ivar linearizable: ask the quorum, not only the member that answers (since 3.5; 3.4 ignores it).
    """

    linearizable: bool = False


class MemberListResponse(Response, frozen=True):
    """
    The members of the cluster.

    :ivar members: all of them.
    """

    members: tuple[Member, ...] = ()


class MemberPromoteRequest(Message, frozen=True):
    """
    Give a learner its vote.

    :ivar ID: which member.
    """

    ID: int = 0


class MemberPromoteResponse(Response, frozen=True):
    """
    The learner has a vote now.

    :ivar members: all of them, as they are now.
    """

    members: tuple[Member, ...] = ()
