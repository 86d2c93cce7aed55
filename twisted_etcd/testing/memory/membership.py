"""The one member, its cluster as far as it has one, and its alarms."""

from __future__ import annotations

import re

import msgspec

from twisted_etcd.errors import (
    BadMemberURLs,
    EtcdError,
    FailedPrecondition,
    InvalidArgument,
    LearnerNotReady,
    MemberNotFound,
    MemberNotLearner,
    PeerURLExists,
)
from twisted_etcd.schema.cluster import Member
from twisted_etcd.schema.maintenance import AlarmAction, AlarmMember, AlarmRequest, AlarmType, DowngradeAction
from twisted_etcd.testing.memory.refusals import refusal

#: What it says that it is.
VERSION = "3.5.16"
CLUSTER_VERSION = "3.5.0"
#: The version that it could go down to.
_LOWER_VERSION = "3.4"
#: etcd's words about a downgrade.
_NO_DOWNGRADE = "cluster is not under an active downgrade"
_UNDER_WAY = "cluster has an ongoing downgrade job"
_NO_VERSION = "wrong downgrade target version format"
_BAD_VERSION = "invalid downgrade target version"
_URL = re.compile(r"https?://[^/:]+:\d+/?|unixs?://.+")


class Membership:
    """
    The members of the cluster. The first is the one that serves; others are on the list alone.

    :param client_url: where it is reached.
    """

    def __init__(self, client_url: str) -> None:
        self.cluster_id = 0x6D656D6F7279
        self.member_id = 0x6D656D626572
        self._next_id = self.member_id + 1
        self._client_url = client_url
        self._members = {
            self.member_id: Member(
                ID=self.member_id, name="memory", peerURLs=("http://192.0.2.1:2380",), clientURLs=(client_url,)
            )
        }

    def all(self) -> tuple[Member, ...]:
        """The members."""
        return tuple(self._members.values())

    def add(self, peer_urls: tuple[str, ...], *, learner: bool) -> Member:
        """
        Put a member on the list.

        :raises EtcdError: where its URLs cannot be used.
        """
        self._check_urls(peer_urls)
        member = Member(ID=self._next_id, peerURLs=peer_urls, isLearner=learner)
        self._members[member.ID] = member
        self._next_id += 1
        return member

    def remove(self, member_id: int) -> None:
        """
        Take a member from the list.

        :raises EtcdError: where there is none of that id, or it is the one that serves.
        """
        self._named(member_id)
        if member_id == self.member_id:
            message = "etcdserver: re-configuration failed due to not enough started members"
            raise FailedPrecondition(FailedPrecondition.grpc_code, message)
        del self._members[member_id]

    def update(self, member_id: int, peer_urls: tuple[str, ...]) -> None:
        """
        Give a member other URLs.

        :raises EtcdError: where there is none of that id, or the URLs cannot be used.
        """
        self._check_urls(peer_urls, but=member_id)
        self._members[member_id] = msgspec.structs.replace(self._named(member_id), peerURLs=peer_urls)

    def promote(self, member_id: int) -> None:
        """
        Refuse to give a member its vote, as etcd does where it is not running.

        :raises EtcdError: always.
        """
        learner = self._named(member_id).isLearner
        raise refusal(LearnerNotReady if learner else MemberNotLearner)

    def _named(self, member_id: int) -> Member:
        if member_id not in self._members:
            raise refusal(MemberNotFound)
        return self._members[member_id]

    def _check_urls(self, peer_urls: tuple[str, ...], but: int = 0) -> None:
        if not peer_urls or not all(_URL.fullmatch(url) for url in peer_urls):
            raise refusal(BadMemberURLs)
        taken = {url for member in self._members.values() if but != member.ID for url in member.peerURLs}
        if taken & set(peer_urls):
            raise refusal(PeerURLExists)


class Alarms:
    """The alarms that were raised."""

    def __init__(self) -> None:
        self._alarms: dict[tuple[int, AlarmType], AlarmMember] = {}

    def __contains__(self, kind: AlarmType) -> bool:
        return any(alarm.alarm is kind for alarm in self._alarms.values())

    def change(self, request: AlarmRequest) -> tuple[AlarmMember, ...]:
        """Do what a request says; the alarms that it is about."""
        key = request.memberID, request.alarm
        if request.action is AlarmAction.ACTIVATE:
            self._alarms[key] = AlarmMember(memberID=request.memberID, alarm=request.alarm)
            return (self._alarms[key],)
        if request.action is AlarmAction.DEACTIVATE:
            gone = self._alarms.pop(key, None)
            return () if gone is None else (gone,)
        return tuple(alarm for alarm in self._alarms.values() if request.alarm in {AlarmType.NONE, alarm.alarm})


class Downgrade:
    """Whether the cluster is on its way to an older version, which here it never reaches."""

    def __init__(self) -> None:
        self._target = ""

    def change(self, action: DowngradeAction, version: str) -> None:
        """
        Do what a request says.

        :raises EtcdError: where it cannot be done.
        """
        if action is DowngradeAction.CANCEL:
            if not self._target:
                raise _precondition(_NO_DOWNGRADE)
            self._target = ""
            return
        found = re.fullmatch(r"v?(\d+\.\d+)(\.\d+)?", version)
        if found is None:
            raise _argument(_NO_VERSION)
        if found[1] != _LOWER_VERSION:
            raise _argument(_BAD_VERSION)
        if self._target:
            raise _precondition(_UNDER_WAY)
        if action is DowngradeAction.ENABLE:
            self._target = version


def _argument(words: str) -> EtcdError:
    return InvalidArgument(InvalidArgument.grpc_code, f"etcdserver: {words}")


def _precondition(words: str) -> EtcdError:
    return FailedPrecondition(FailedPrecondition.grpc_code, f"etcdserver: {words}")
