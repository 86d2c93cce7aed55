"""
Everything that twisted-etcd raises, in one tree::

    TwistedEtcdError
    ├── EtcdError                        etcd's own answer: .code (gRPC status), .message
    │   ├── Cancelled                    code 1
    │   ├── UnknownError                 code 2
    │   │   └── NoElectionLeader
    │   ├── InvalidArgument              code 3
    │   │   ├── EmptyKey
    │   │   ├── KeyNotFound
    │   │   ├── ValueProvided
    │   │   ├── LeaseProvided
    │   │   ├── TooManyOperations
    │   │   ├── DuplicateKey
    │   │   ├── InvalidSortOption
    │   │   ├── RequestTooLarge
    │   │   ├── UserEmpty
    │   │   ├── RoleEmpty
    │   │   ├── AuthenticationFailed
    │   │   ├── CertificateNamesUser
    │   │   ├── PermissionNotGiven
    │   │   ├── OldAuthRevision
    │   │   ├── InvalidAuthManagement
    │   │   ├── BadMemberURLs
    │   │   └── InvalidDowngradeVersion
    │   ├── ServerDeadlineExceeded       code 4
    │   ├── NotFound                     code 5
    │   │   ├── LeaseNotFound
    │   │   └── MemberNotFound
    │   ├── AlreadyExists                code 6
    │   ├── PermissionDenied             code 7
    │   ├── ResourceExhausted            code 8
    │   │   ├── NoSpace
    │   │   └── TooManyRequests
    │   ├── FailedPrecondition           code 9
    │   │   ├── LeaseExists
    │   │   ├── MemberExists
    │   │   ├── PeerURLExists
    │   │   ├── NotEnoughStarted
    │   │   ├── MemberNotLearner
    │   │   ├── LearnerNotReady
    │   │   ├── TooManyLearners
    │   │   ├── ClusterIDMismatch
    │   │   ├── RootUserMissing
    │   │   ├── RootRoleMissing
    │   │   ├── UserExists
    │   │   ├── UserNotFound
    │   │   ├── RoleExists
    │   │   ├── RoleNotFound
    │   │   ├── RoleNotGranted
    │   │   ├── PermissionNotGranted
    │   │   ├── AuthNotEnabled
    │   │   ├── NotLeader
    │   │   ├── NotCapable
    │   │   ├── NotSupportedForLearner
    │   │   ├── BadLeaderTransferee
    │   │   ├── DowngradeUnderWay
    │   │   └── NoDowngrade
    │   ├── Aborted                      code 10
    │   ├── OutOfRange                   code 11
    │   │   ├── Compacted                also .compact_revision
    │   │   ├── FutureRevision
    │   │   └── LeaseTTLTooLarge
    │   ├── Unimplemented                code 12
    │   ├── InternalError                code 13
    │   ├── ServerUnavailable            code 14
    │   │   ├── NoLeader
    │   │   ├── LeaderChanged
    │   │   ├── ServerStopped
    │   │   ├── NotAccepted
    │   │   ├── RequestTimedOut
    │   │   └── UnhealthyCluster
    │   ├── CorruptCluster               code 15
    │   └── Unauthenticated              code 16
    │       └── InvalidAuthToken
    ├── RequestFailed                    no answer of etcd's arrived
    │   ├── Unavailable                  certainly not applied
    │   │   ├── NotEtcd                  something answered that is no etcd gateway
    │   │   └── TLSFailed                the certificates of one side were refused
    │   ├── OutcomeUnknown               a write that may have been applied
    │   └── DeadlineExceeded             a read that got no answer in time
    ├── ServiceStopped                   stopService came first
    ├── SnapshotNotWritten               a snapshot's file could not be written
    ├── TooManyConflicts                 a transaction that others came between each time: not applied
    ├── NotACounter                      the key of a counter holds something else
    ├── LeaseLost                        the lease is gone, and its keys with it
    ├── RecipeError                      a lock, an election, a barrier or a queue did not do what was asked for
    │   ├── WaitTimedOut                 what was waited for did not come within the caller's timeout
    │   ├── AlreadyHeld                  what was to be taken is held here already
    │   ├── NotHeld                      what was to be given back, or used, is not held here
    │   ├── NotElected                   only the leader can do this
    │   └── BarrierFull                  as many as a barrier is for have entered already
    ├── WatchEnded
    │   ├── WatchStopped                 its stop() was called
    │   ├── WatchCancelled               etcd ended the watch and said why
    │   └── ClusterChanged               another cluster answers at this address
    │       └── HistoryReplaced          the same one, set back to an older state
    ├── MessagingError
    │   ├── ServiceNotFound              no service of that name in the node
    │   ├── ServiceUnavailable           the service is not running
    │   ├── UnhandledMessage             the service has no handler for that message
    │   └── SessionTimeout               no answer within the call's time
    ├── ConnectFailed                    no instance of a service could be connected to; of the room endpoints, and
    │   │                                Twisted's ConnectError as well
    │   └── NoInstance                   there was none to try
    ├── InvalidSettings                  configuration that cannot be used, and where
    ├── RenderError                      a file could not be brought up to date from its template
    ├── ConfigError                      a configuration value in etcd: .key, .revision
    │   ├── Conflict                     it has changed meanwhile, and was not written
    │   └── BadValue                     it cannot be decoded, and in which .place
    └── EmbeddedEtcdError
        ├── BinaryNotFound               no etcd program on this machine
        └── StartFailed                  etcd did not come up

An error that etcd itself answered is found by its message first and by its code second, because several arrive with
the code 2 over the JSON gateway.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import ClassVar


class TwistedEtcdError(Exception):
    """The root of all errors that this package raises."""


# --- what etcd answered -------------------------------------------------------------------------------------------


class EtcdError(TwistedEtcdError):
    """
    An error that etcd answered.

    :ivar code: the gRPC status code, ``0`` to ``16``.
    :ivar message: etcd's own words.
    """

    #: The gRPC code that this class stands for when no message is known.
    grpc_code: ClassVar[int] = -1
    #: The messages by which etcd names this error, without its prefixes.
    messages: ClassVar[tuple[str, ...]] = ()
    #: How further messages begin that name it, and go on differently each time.
    beginnings: ClassVar[tuple[str, ...]] = ()
    #: True where a write that is answered so may still be applied later.
    may_be_applied: ClassVar[bool] = False
    #: True where another member may well answer differently.
    concerns_member: ClassVar[bool] = False
    #: What the reader can do about it, a sentence; empty where the message says all.
    remedy: ClassVar[str] = ""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        text = f"{self.message} (etcd, code {self.code})"
        return f"{text}; {self.remedy}" if self.remedy else text


class Cancelled(EtcdError):
    """The server gave the request up: it is stopping, or something between it and the client went away."""

    grpc_code = 1
    may_be_applied = True
    concerns_member = True
    messages = ("request canceled", "watch canceled", "context canceled")


class UnknownError(EtcdError):
    """An error without a code of its own (gRPC ``UNKNOWN``)."""

    grpc_code = 2
    may_be_applied = True


class NoElectionLeader(UnknownError):
    """Nobody has won the election (``v3election``); the cluster itself may well have a leader."""

    may_be_applied = False
    messages = ("election: no leader",)


class InvalidArgument(EtcdError):
    """The request itself is wrong; repeating it gives the same answer."""

    grpc_code = 3


class EmptyKey(InvalidArgument):
    """A request named no key."""

    messages = ("key is not provided",)
    remedy = "give a key that is not empty, or prefix=True for all keys"


class KeyNotFound(InvalidArgument):
    """A put with ``ignore_value`` or ``ignore_lease`` named a key that is not there."""

    messages = ("key not found",)


class ValueProvided(InvalidArgument):
    """A put with ``ignore_value`` carried a value."""

    messages = ("value is provided",)


class LeaseProvided(InvalidArgument):
    """A put with ``ignore_lease`` carried a lease."""

    messages = ("lease is provided",)


class TooManyOperations(InvalidArgument):
    """A transaction has more operations than the server's ``--max-txn-ops`` (128 unless set)."""

    messages = ("too many operations in txn request",)
    remedy = "split it, or raise the server's --max-txn-ops"


class DuplicateKey(InvalidArgument):
    """A transaction puts one key twice."""

    messages = ("duplicate key given in txn request",)


class InvalidSortOption(InvalidArgument):
    """The server does not know the sort order or target."""

    messages = ("invalid sort option",)


class RequestTooLarge(InvalidArgument):
    """The request is over the server's ``--max-request-bytes`` (1.5 MiB unless set)."""

    # The second is what the gRPC server below etcd says of a request that is far over it.
    messages = ("request is too large", "grpc: received message larger than max")
    remedy = "split the value, or raise the server's --max-request-bytes"


class UserEmpty(InvalidArgument):
    """The server has authentication on, and the request came without a user."""

    messages = ("user name is empty",)
    remedy = "give the client a username and a password"


class RoleEmpty(InvalidArgument):
    """A role was given no name."""

    messages = ("role name is empty",)


class AuthenticationFailed(InvalidArgument):
    """The user name or the password is wrong."""

    messages = ("authentication failed, invalid user ID or password",)
    remedy = "check the username and the password"


class CertificateNamesUser(InvalidArgument):
    """With authentication on, the gateway serves nobody whose client certificate has a common name."""

    messages = ("CommonName of client sending a request against gateway will be ignored and not used as expected",)
    remedy = "use a client certificate without a common name, and a username and a password"


class PermissionNotGiven(InvalidArgument):
    """A grant named no permission."""

    messages = ("permission not given",)


class OldAuthRevision(InvalidArgument):
    """The token was made before the last change of users and roles."""

    messages = ("revision of auth store is old",)


class InvalidAuthManagement(InvalidArgument):
    """What authentication stands on, the user and the role ``root``, cannot be taken away while it is on."""

    messages = ("invalid auth management",)
    remedy = "switch authentication off first"


class BadMemberURLs(InvalidArgument):
    """A member change carried URLs that the server cannot use."""

    messages = ("given member URLs are invalid",)


class InvalidDowngradeVersion(InvalidArgument):
    """The cluster cannot go down to that version, or it is none."""

    messages = ("invalid downgrade target version", "wrong downgrade target version format")
    remedy = "give the version one minor below the cluster's, as in 3.5.0"


class ServerDeadlineExceeded(EtcdError):
    """The server ran out of time; a write may still be applied."""

    grpc_code = 4
    may_be_applied = True
    concerns_member = True
    messages = ("context deadline exceeded",)


class NotFound(EtcdError):
    """The thing named by the request does not exist."""

    grpc_code = 5


class LeaseNotFound(NotFound):
    """The lease never existed, has expired or was revoked."""

    messages = ("requested lease not found",)
    remedy = "grant a new lease"


class MemberNotFound(NotFound):
    """No member of the cluster has that id."""

    messages = ("member not found",)


class AlreadyExists(EtcdError):
    """The thing that was to be made exists (gRPC ``ALREADY_EXISTS``)."""

    grpc_code = 6


class PermissionDenied(EtcdError):
    """The user has no permission for one of the request's keys, or for the call."""

    grpc_code = 7
    messages = ("permission denied",)
    remedy = "grant the user a role with permission on these keys, or the role root for what is not about keys"


class ResourceExhausted(EtcdError):
    """The server has no room for the request."""

    grpc_code = 8


class NoSpace(ResourceExhausted):
    """
    The database has reached ``--quota-backend-bytes``; the cluster takes no writes.

    Those that were under way when it reached it are answered so too, and are applied all the same.
    """

    may_be_applied = True
    messages = ("mvcc: database space exceeded",)
    remedy = "compact, defragment, then disarm the NOSPACE alarm"


class TooManyRequests(ResourceExhausted):
    """The server has too many requests under way; this one was not started."""

    messages = ("too many requests",)


class FailedPrecondition(EtcdError):
    """The server is not in the state that the request needs."""

    grpc_code = 9


class LeaseExists(FailedPrecondition):
    """A lease with that id is there already."""

    messages = ("lease already exists",)


class MemberExists(FailedPrecondition):
    """A member with that id is there already."""

    messages = ("member ID already exist",)


class PeerURLExists(FailedPrecondition):
    """A member with that peer URL is there already."""

    messages = ("Peer URLs already exists",)


class NotEnoughStarted(FailedPrecondition):
    """The member change would leave the cluster without a quorum of started members."""

    messages = ("re-configuration failed due to not enough started members",)


class MemberNotLearner(FailedPrecondition):
    """Only a learner can be promoted."""

    messages = ("can only promote a learner member",)


class LearnerNotReady(FailedPrecondition):
    """The learner has not caught up with its leader."""

    messages = ("can only promote a learner member which is in sync with leader",)


class TooManyLearners(FailedPrecondition):
    """The cluster has as many learners as it allows."""

    messages = ("too many learner members in cluster",)


class ClusterIDMismatch(FailedPrecondition):
    """The request was meant for another cluster."""

    messages = ("cluster ID mismatch",)


class RootUserMissing(FailedPrecondition):
    """Authentication needs the user ``root`` first."""

    messages = ("root user does not exist",)


class RootRoleMissing(FailedPrecondition):
    """Authentication needs the user ``root`` to have the role ``root`` first."""

    messages = ("root user does not have root role",)


class UserExists(FailedPrecondition):
    """A user of that name is there already."""

    messages = ("user name already exists",)


class UserNotFound(FailedPrecondition):
    """No user has that name."""

    messages = ("user name not found",)


class RoleExists(FailedPrecondition):
    """A role of that name is there already."""

    messages = ("role name already exists",)


class RoleNotFound(FailedPrecondition):
    """No role has that name."""

    messages = ("role name not found",)


class RoleNotGranted(FailedPrecondition):
    """The user does not have that role."""

    messages = ("role is not granted to the user",)


class PermissionNotGranted(FailedPrecondition):
    """The role does not have that permission."""

    messages = ("permission is not granted to the role",)


class AuthNotEnabled(FailedPrecondition):
    """The server has authentication off."""

    messages = ("authentication is not enabled",)


class NotLeader(FailedPrecondition):
    """Only the leader can do this, and the member is not, or cannot be sure that it still is."""

    concerns_member = True
    messages = ("not leader", "not a primary lessor")


class NotCapable(FailedPrecondition):
    """The cluster's version is too low for the request."""

    messages = ("not capable",)


class NotSupportedForLearner(FailedPrecondition):
    """The member is a learner, which serves no such request."""

    concerns_member = True
    messages = ("rpc not supported for learner",)


class BadLeaderTransferee(FailedPrecondition):
    """The member cannot become the leader."""

    messages = ("bad leader transferee",)


class DowngradeUnderWay(FailedPrecondition):
    """The cluster has a downgrade that has begun and not ended."""

    messages = ("cluster has a downgrade job in progress", "cluster has an ongoing downgrade job")
    remedy = "cancel it first"


class NoDowngrade(FailedPrecondition):
    """The cluster has no downgrade that could be cancelled."""

    messages = ("no inflight downgrade job",)


class Aborted(EtcdError):
    """gRPC ``ABORTED``."""

    grpc_code = 10
    may_be_applied = True


class OutOfRange(EtcdError):
    """A revision or a number is outside what the server has."""

    grpc_code = 11


class Compacted(OutOfRange):
    """
    The wanted revision is no longer kept.

    :ivar compact_revision: the lowest revision that can still be read; 0 where the server did not say.
    """

    messages = ("mvcc: required revision has been compacted",)
    remedy = "read the current state and go on from its revision"

    def __init__(self, code: int, message: str, compact_revision: int = 0) -> None:
        super().__init__(code, message)
        self.compact_revision = compact_revision


class FutureRevision(OutOfRange):
    """The wanted revision does not exist yet."""

    messages = ("mvcc: required revision is a future revision",)


class LeaseTTLTooLarge(OutOfRange):
    """The TTL is over 9,000,000,000 seconds."""

    messages = ("too large lease TTL",)


class Unimplemented(EtcdError):
    """The server does not have this call."""

    grpc_code = 12
    remedy = "the server's version may be too old for it"


class InternalError(EtcdError):
    """gRPC ``INTERNAL``."""

    grpc_code = 13
    may_be_applied = True


class ServerUnavailable(EtcdError):
    """The member cannot serve the request now."""

    grpc_code = 14
    may_be_applied = True
    concerns_member = True


class NoLeader(ServerUnavailable):
    """The member sees no leader, and refused the request for it."""

    may_be_applied = False
    messages = ("no leader",)


class LeaderChanged(ServerUnavailable):
    """The leader changed while the request was under way; a write may have been applied."""

    messages = ("leader changed",)


class ServerStopped(ServerUnavailable):
    """The member is shutting down."""

    messages = ("server stopped", "raft: stopped")


class NotAccepted(ServerUnavailable):
    """The member did not take the request in: it is starting or stopping, or its leader is just changing."""

    may_be_applied = False
    messages = ("raft proposal dropped", "grpc: the client connection is closing")
    # What the gateway says that has no connection to the member that it is a part of.
    beginnings = ('connection error: desc = "transport: Error while dialing',)


class RequestTimedOut(ServerUnavailable):
    """The cluster did not agree in time; a write may have been applied."""

    messages = (
        "request timed out",
        "request timed out, possibly due to previous leader failure",
        "request timed out, possibly due to connection lost",
        "request timed out, waiting for the applied index took too long",
        "request timed out, leader transfer took too long",
    )


class UnhealthyCluster(ServerUnavailable):
    """A member change was refused because not all members are connected."""

    may_be_applied = False
    messages = ("unhealthy cluster",)


class CorruptCluster(EtcdError):
    """A member's data differs from the others'."""

    grpc_code = 15
    may_be_applied = True
    messages = ("corrupt cluster",)


class Unauthenticated(EtcdError):
    """The request's token or certificate was not accepted."""

    grpc_code = 16


class InvalidAuthToken(Unauthenticated):
    """The token is unknown to the server or has expired."""

    messages = ("invalid auth token",)


def _subclasses(root: type[EtcdError]) -> Iterator[type[EtcdError]]:
    for cls in root.__subclasses__():
        yield cls
        yield from _subclasses(cls)


#: What etcd puts before some of its messages, by where they come from.
_PREFIXES = ("etcdserver: ", "auth: ")
_BY_MESSAGE = {message: cls for cls in _subclasses(EtcdError) for message in cls.messages}
_BY_BEGINNING = {beginning: cls for cls in _subclasses(EtcdError) for beginning in cls.beginnings}
_BY_CODE = {cls.grpc_code: cls for cls in EtcdError.__subclasses__()}


def etcd_error(code: int, message: str) -> EtcdError:
    """
    The error for what etcd answered: by its message, else by its code.

    :param code: the gRPC status code that came with it. An error known by its message keeps the code of its class,
        since the gateway sends several of them as code 2.
    :param message: etcd's words, with or without its prefixes ``etcdserver: `` and ``auth: ``.
    """
    words = message
    for prefix in _PREFIXES:
        words = words.removeprefix(prefix)
    # Some end in numbers in brackets, of this one request.
    cls = _BY_MESSAGE.get(words) or _BY_MESSAGE.get(words.partition(" (")[0])
    if cls is None:
        cls = next((each for beginning, each in _BY_BEGINNING.items() if words.startswith(beginning)), None)
    if cls is not None:
        return cls(cls.grpc_code, message)
    return _BY_CODE.get(code, UnknownError)(code, message)


# --- no answer ------------------------------------------------------------------------------------------------------


class RequestFailed(TwistedEtcdError):
    """
    No answer of etcd's arrived.

    :ivar tried: what went wrong at each endpoint that was tried, by its URL.
    """

    def __init__(self, message: str, tried: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.tried = dict(tried or {})

    def __str__(self) -> str:
        text = str(self.args[0])
        if not self.tried:
            return text
        return text + ": " + "; ".join(f"{endpoint}: {why}" for endpoint, why in self.tried.items())


class Unavailable(RequestFailed):
    """The request was certainly not applied: it can be sent again."""


class NotEtcd(Unavailable):
    """Something answered at the endpoint that does not speak etcd's v3 JSON gateway."""


class TLSFailed(Unavailable):
    """A certificate, the server's or the client's, was refused."""


class OutcomeUnknown(RequestFailed):
    """A write was sent and no answer came: it may have been applied, or may yet be."""


class DeadlineExceeded(RequestFailed):
    """A read, or a request that is as good done twice as once, got no answer within its timeout."""


class ServiceStopped(TwistedEtcdError):
    """``stopService`` was called; a write that was under way may have been applied."""


class SnapshotNotWritten(TwistedEtcdError):
    """
    The file of a snapshot could not be written: no such directory, no permission, no room.

    :ivar path: where it was to be.
    :ivar why: in the system's words.
    """

    def __init__(self, path: PurePath, why: str) -> None:
        super().__init__(f"the snapshot {path} could not be written: {why}")
        self.path = path
        self.why = why


# --- transactions ---------------------------------------------------------------------------------------------------


class TooManyConflicts(TwistedEtcdError):
    """
    A transaction was not applied, since others changed what it had read, in each of its attempts.

    :ivar attempts: how many there were.
    """

    def __init__(self, attempts: int) -> None:
        times = "1 attempt" if attempts == 1 else f"{attempts} attempts"
        super().__init__(
            f"the transaction was not applied: others came between in {times}; allow it more attempts, or let fewer "
            "change the same keys at a time"
        )
        self.attempts = attempts


class NotACounter(TwistedEtcdError):
    """
    The key of a counter holds something else than a whole number in decimal.

    :ivar key: which key.
    """

    def __init__(self, key: bytes, size: int) -> None:
        super().__init__(
            f"{key!r} holds {size} bytes that are no whole number in decimal, so that nothing can be added to it: give "
            "the counter another key, or set it"
        )
        self.key = key


# --- leases ---------------------------------------------------------------------------------------------------------


class LeaseLost(TwistedEtcdError):
    """
    A lease is gone, and its keys with it.

    :ivar lease_id: which one.
    """

    def __init__(self, lease_id: int, why: str) -> None:
        super().__init__(f"lease {lease_id:x} is lost: {why}")
        self.lease_id = lease_id


# --- recipes --------------------------------------------------------------------------------------------------------


class RecipeError(TwistedEtcdError):
    """A lock, an election, a barrier or a queue did not do what was asked for."""


class WaitTimedOut(RecipeError):
    """
    What was waited for did not come within the caller's ``timeout``.

    :ivar seconds: how long it was waited for.
    """

    def __init__(self, what: str, seconds: float) -> None:
        super().__init__(f"{what} within {seconds:g} s")
        self.seconds = seconds


class AlreadyHeld(RecipeError):
    """What was to be taken is held here already, or is being taken: to wait for it would be to wait for oneself."""


class NotHeld(RecipeError):
    """What was to be given back, or used, is not held here."""


class NotElected(RecipeError):
    """Only the leader of an election can do this, and this one is not, or is no longer."""


class BarrierFull(RecipeError):
    """As many as the barrier is for have entered already."""


# --- the end of watches ---------------------------------------------------------------------------------------------


class WatchEnded(TwistedEtcdError):
    """A watch has ended for good: nothing more will come of it."""


class WatchStopped(WatchEnded):
    """The watch's ``stop()`` was called."""


class WatchCancelled(WatchEnded):
    """
    etcd ended the watch.

    :ivar reason: etcd's ``cancel_reason``.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"etcd cancelled the watch: {reason or 'no reason given'}")
        self.reason = reason


class ClusterChanged(WatchEnded):
    """The endpoint belongs to another cluster now, so its revisions mean something else."""

    def __init__(self, before: int, now: int) -> None:
        super().__init__(
            f"the watch began on cluster {before:x} and now cluster {now:x} answers: read again, then watch"
        )
        self.before = before
        self.now = now


class HistoryReplaced(ClusterChanged):
    """
    The cluster has an older history than it had, as after a restore from a backup: its revisions mean something else.

    It is noticed where the watch comes back before the new history has grown past what it was told of; later nothing
    tells the two apart.

    :ivar before: the revision that was told of.
    :ivar now: the cluster's revision now.
    """

    def __init__(self, before: int, now: int) -> None:
        WatchEnded.__init__(
            self,
            f"the watch was told of revision {before} and the cluster is at {now} now, as if it was restored from a "
            "backup: read again, then watch",
        )
        self.before = before
        self.now = now


# --- messages -------------------------------------------------------------------------------------------------------


class MessagingError(TwistedEtcdError):
    """A message could not be delivered or answered."""


class ServiceNotFound(MessagingError):
    """The node has no service of that name."""


class ServiceUnavailable(MessagingError):
    """The service is there but not running: not started yet, stopping, stopped, or it refused to start."""


class UnhandledMessage(MessagingError):
    """The service has no handler for messages of that class."""


class SessionTimeout(MessagingError):
    """A call was not answered in time; its handler was cancelled."""


# --- configuration and the embedded etcd ----------------------------------------------------------------------------


class InvalidSettings(TwistedEtcdError, ValueError):
    """Configuration that cannot be used: the text names the file, the path of the key and what was expected."""


class RenderError(TwistedEtcdError):
    """
    A file could not be rendered, checked or written, or what reads it not told: the text names the template with its
    line, the file, or the command with its last words, and what was wrong. No value of a key is in it, unless the
    command says one.
    """


class ConfigError(TwistedEtcdError):
    """
    Something about one configuration value in etcd.

    :ivar key: its path, without the prefix.
    :ivar revision: etcd's revision of its last change; 0 where etcd does not have it.
    """

    def __init__(self, message: str, key: str, revision: int) -> None:
        super().__init__(message)
        self.key = key
        self.revision = revision


class Conflict(ConfigError):
    """
    A write was not applied, since the value is not what the writer took it for.

    :ivar revision: that of the value that is there; 0 where there is none.
    """

    def __init__(self, key: str, wanted: int, revision: int) -> None:
        is_there = f"it was changed at revision {revision}" if revision else "it is not there"
        expected = f"unchanged since revision {wanted}" if wanted else "absent"
        super().__init__(
            f"configuration {key!r} was to be {expected}, and {is_there}: read it again, then write", key, revision
        )
        self.wanted = wanted


class BadValue(ConfigError, ValueError):
    """
    A configuration value that cannot be decoded. The error shows nothing of it.

    :ivar place: where in the value the mistake is, as in ``pool.size``; empty for the value as a whole.
    :ivar why: what is wrong there.
    """

    def __init__(self, key: str, revision: int, place: str, why: str) -> None:
        where = f" at {place}" if place else ""
        super().__init__(f"configuration {key!r}, of revision {revision}, cannot be used{where}: {why}", key, revision)
        self.place = place
        self.why = why


class EmbeddedEtcdError(TwistedEtcdError):
    """An etcd process of our own could not be run."""


class BinaryNotFound(EmbeddedEtcdError):
    """No etcd program was found on this machine."""


class StartFailed(EmbeddedEtcdError):
    """etcd was started and did not come up; the text ends with its last lines."""
