"""
What a registration does next, whatever happens to it, in whatever order. Pure: events in, actions out.

What is wanted is compared with what is known to be there, after each event, and the difference decides. So a write that
is answered late, a watch that tells of it before its answer, a lease that is lost while the key is being put, need no
rules of their own.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

import msgspec

from twisted_etcd.backoff import Backoff
from twisted_etcd.errors import EtcdError, LeaseNotFound, OutcomeUnknown

#: Seconds: the longest wait before a write that failed is tried again.
LONGEST_BACKOFF = 10.0
#: Seconds: likewise, where etcd refused that very key: it takes somebody who changes a permission.
LONGEST_REFUSED = 30.0
#: Seconds: the longest wait of two that claim one key, before it is put back once more.
LONGEST_CONTEST = 10.0
#: Seconds that the key must have stood for the next one who takes it to be a new one.
CALM = 30.0


class RegistrationState(str, enum.Enum):
    """
    ``WANTED``: asked for, and not there yet. ``ALIVE``: etcd has it, by a lease of ours. ``LOST``: it was there, and is
    being put back. ``CONTESTED``: somebody else has put something at its key, again and again where it lasts; it is
    being put back. ``WITHHELD``: deliberately not there. ``ENDED``: taken back.
    """

    WANTED = "wanted"
    ALIVE = "alive"
    LOST = "lost"
    CONTESTED = "contested"
    WITHHELD = "withheld"
    ENDED = "ended"


class Wish(enum.Enum):
    """What is wanted. ``PAUSED``: another registration of ours is about to take its place."""

    OFFERED = enum.auto()
    WITHHELD = enum.auto()
    PAUSED = enum.auto()
    ENDED = enum.auto()


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """
    What is at the key.

    :ivar revision: of its last change, or of the reading that found nothing.
    :ivar there: whether anything is.
    :ivar lease: that it lives by.
    :ivar value: None where that was not read.
    """

    revision: int
    there: bool = False
    lease: int = 0
    value: bytes | None = None


# --- actions --------------------------------------------------------------------------------------------------------


class Join(msgspec.Struct, frozen=True):
    """Have a lease."""


class Leave(msgspec.Struct, frozen=True):
    """Need the lease no longer; answer with ``left``."""


class Put(msgspec.Struct, frozen=True):
    """Put the key; answer with ``written`` or ``not_written``."""

    value: bytes
    lease: int


class Remove(msgspec.Struct, frozen=True):
    """Delete the key where it lives by this lease; likewise."""

    lease: int


class Wait(msgspec.Struct, frozen=True):
    """Answer with ``waited`` after so many seconds."""

    seconds: float


class WaitNoLonger(msgspec.Struct, frozen=True):
    """Do not."""


class Doubt(msgspec.Struct, frozen=True):
    """etcd says that it does not have this lease: see to it that whoever keeps it hears of that."""

    lease: int


class Linger(msgspec.Struct, frozen=True):
    """A put of unknown outcome may come yet, and the lease lives on: delete what it brings."""

    lease: int


class Say(msgspec.Struct, frozen=True):
    """
    Somebody took the key, which is put back.

    :ivar again: not for the first time; this is said once, until it has been calm.
    """

    again: bool


class GiveUp(msgspec.Struct, frozen=True):
    """The first attempt failed, and it has no patience: take it back, for this reason."""

    error: Exception


Write = Put | Remove
Action = Join | Leave | Write | Wait | WaitNoLonger | Doubt | Linger | Say | GiveUp
Actions = tuple[Action, ...]


class _Waiting(enum.Enum):
    NO = enum.auto()
    FAILED = enum.auto()
    CONTESTED = enum.auto()


class RegistrationMachine:
    """
    :param value: what the key is to have.
    :param patient: go on where the first attempt fails.
    :param withheld: begin with the key deliberately not there.
    :param random: gives numbers from 0 up to 1; for the waits.
    :ivar lease: the lease that it has now; 0 for none.
    :ivar writes: how many writes it has asked for.
    :ivar registered: whether the key was there once.
    :ivar last_error: what went wrong last, None once it is as wanted again.
    :ivar removes: whether its removal, at the end, is its own, and not that of its lease.
    :ivar failure: why its removal, at the end, did not succeed so far.
    """

    def __init__(self, value: bytes, *, patient: bool, withheld: bool, random: Callable[[], float]) -> None:
        self.lease = 0
        self.writes = 0
        self.registered = False
        self.last_error: Exception | None = None
        self.failure: Exception | None = None
        self._value = value
        self._patient = patient
        self._wish = Wish.WITHHELD if withheld else Wish.OFFERED
        #: What is wanted again, where its successor fails.
        self._before_pause = self._wish
        self._backoff = Backoff(random, longest=LONGEST_BACKOFF)
        self._refusals = Backoff(random, longest=LONGEST_REFUSED)
        self._contest = Backoff(random, longest=LONGEST_CONTEST)
        self._waiting = _Waiting.NO
        #: The write that is not answered yet.
        self._under_way: Write | None = None
        self._there = Found(revision=0)
        #: What was seen while a write was under way, the last of it.
        self._meanwhile: Found | None = None
        #: Whether a write of unknown outcome came after what is known.
        self._unsure = False
        #: The lease of a put that may come late.
        self._late = 0
        #: The lease before.
        self._former = 0
        #: Whether it has been there since it was wanted last.
        self._was_alive = False
        self._stands_since = 0.0

        self.removes = False
        self._has_left = False
        self._is_over = False

    # --- what it is -------------------------------------------------------------------------------------------------

    @property
    def state(self) -> RegistrationState:
        """As its user sees it."""
        if self._wish is Wish.ENDED:
            return RegistrationState.ENDED
        if Wish.WITHHELD in (self._wish, self._before_pause if self._wish is Wish.PAUSED else None):
            return RegistrationState.WITHHELD
        if self._is_ours:
            return RegistrationState.ALIVE
        if self._was_alive and self._there.there:
            return RegistrationState.CONTESTED
        return RegistrationState.LOST if self._was_alive else RegistrationState.WANTED

    @property
    def doing(self) -> str:
        """What goes on, in words."""
        if self._waiting is not _Waiting.NO:
            return "waits to try again"
        if self._under_way is not None:
            return "is being put" if isinstance(self._under_way, Put) else "is being removed"
        if self._wish in (Wish.OFFERED, Wish.PAUSED) and not self.lease:
            return "waits for a lease"
        return "rests"

    @property
    def is_settled(self) -> bool:
        """Whether etcd has what is wanted, as far as is known."""
        if self._under_way is not None:
            return False
        if self._wish is Wish.OFFERED:
            return self._is_as_wanted
        return self._wish is Wish.WITHHELD and not self._may_be_there

    @property
    def is_writing(self) -> bool:
        """Whether a write is not answered yet."""
        return self._under_way is not None

    @property
    def is_over(self) -> bool:
        """Whether it has ended, and nothing of it is left, or can be removed."""
        return self._is_over

    @property
    def revision(self) -> int:
        """Of what is known to be there."""
        return self._there.revision

    @property
    def _is_ours(self) -> bool:
        return self.lease != 0 and self._there.there and self._there.lease == self.lease

    @property
    def _is_as_wanted(self) -> bool:
        return self._is_ours and not self._unsure and self._there.value == self._value

    @property
    def _may_be_there(self) -> bool:
        return self.lease != 0 and (self._unsure or self._is_ours)

    # --- the lease --------------------------------------------------------------------------------------------------

    def begin(self) -> Actions:
        """It was asked for."""
        return (Join(),)

    def granted(self, lease: int) -> Actions:
        """It has a lease."""
        self.lease = lease
        return self._go_on()

    def refused(self, error: Exception) -> Actions:
        """No lease this time; whoever keeps it goes on trying."""
        self.last_error = error
        return self._give_up_unless_patient(error)

    def lost(self) -> Actions:
        """The lease is gone, and the key with it."""
        self._former, self.lease = self.lease, 0
        self._late = 0
        self._unsure = False
        # By whoever took the lease the key was not meant.
        self._contest.reset()
        self._there = Found(revision=self._there.revision)
        return (*self._wait_no_longer(), *self._go_on())

    # --- the writes -------------------------------------------------------------------------------------------------

    def written(self, revision: int, now: float) -> Actions:
        """The write was done, at this revision of etcd's."""
        write, meanwhile = self._answered()
        self._backoff.reset()
        self._refusals.reset()
        self.last_error = None
        self._unsure = False
        if isinstance(write, Put):
            self._stands_since = now
            self._know(Found(revision=revision, there=True, lease=write.lease, value=write.value))
        else:
            self._know(Found(revision=revision))
        if meanwhile is not None and meanwhile.revision > revision:
            return self._take_in(meanwhile, now)
        return self._go_on()

    def not_written(self, error: Exception) -> Actions:
        """The write was refused, or failed."""
        write, meanwhile = self._answered()
        self.last_error = error
        if meanwhile is not None and meanwhile.revision > self._there.revision:
            self._know(meanwhile)
        if write.lease != self.lease:
            # It was for a lease that is gone, and goes with that wherever it came to.
            return self._go_on()
        if isinstance(error, OutcomeUnknown):
            self._unsure = True
            if isinstance(write, Put):
                self._late = write.lease
        doubt: Actions = (Doubt(write.lease),) if isinstance(error, LeaseNotFound) else ()
        if self._wish is Wish.ENDED:
            self.failure = error
        else:
            given_up = self._give_up_unless_patient(error)
            if given_up:
                return (*doubt, *given_up)
        refused = isinstance(error, EtcdError) and not doubt
        return (*doubt, *self._wait(_Waiting.FAILED, self._refusals if refused else self._backoff))

    def _answered(self) -> tuple[Write, Found | None]:
        write, self._under_way = self._under_way, None
        meanwhile, self._meanwhile = self._meanwhile, None
        if write is None:
            msg = "no write was under way"
            raise AssertionError(msg)
        return write, meanwhile

    def waited(self) -> Actions:
        """The time is over."""
        self._waiting = _Waiting.NO
        return self._go_on()

    # --- what is seen of the key ------------------------------------------------------------------------------------

    def seen(self, found: Found, now: float) -> Actions:
        """The watch tells of a change."""
        if self._under_way is not None:
            self._meanwhile = found
            return ()
        if found.revision <= self._there.revision:
            return ()
        return self._take_in(found, now)

    def read(self, found: Found, now: float, *, writes: int) -> Actions:
        """
        The key was read.

        :param writes: how many there were when that was asked for. With another one since, its revision decides, and
            not that it is the latest.
        """
        if self._under_way is not None or writes != self.writes:
            return self.seen(found, now)
        if found.there and found.revision == self._there.revision and found.value is None:
            found = msgspec.structs.replace(found, value=self._there.value)
        return self._take_in(found, now)

    def forget(self) -> None:
        """The history that it was seen in is no longer that of etcd: whatever is read next is news."""
        self._there = msgspec.structs.replace(self._there, revision=0)

    def _take_in(self, found: Found, now: float) -> Actions:
        was_as_wanted = self._wish is Wish.OFFERED and self._is_as_wanted
        has_left = self._waiting is _Waiting.CONTESTED and self._there.there and not found.there
        self._unsure = False
        self._know(found)
        if was_as_wanted and not self._is_as_wanted:
            return self._mend(now)
        if has_left or (self._waiting is not _Waiting.NO and self._is_as_wanted):
            # Whoever had taken it has left; or it is there, and it was the answer that was lost.
            return (*self._wait_no_longer(), *self._go_on())
        return self._go_on()

    def _know(self, found: Found) -> None:
        if found.there and found.lease == self._former != 0:
            # It goes with that lease, which nobody keeps any longer.
            found = Found(revision=found.revision)
        self._there = found
        if self._is_ours:
            self.registered = self._was_alive = True

    def _mend(self, now: float) -> Actions:
        """Put it back: at once the first time, and then after waits, since whoever took it may do so again."""
        if now - self._stands_since > CALM:
            self._contest.reset()
        rounds = self._contest.rounds
        if rounds == 0:
            self._contest.next()
            return (Say(again=False), *self._go_on())
        said: Actions = (Say(again=True),) if rounds == 1 else ()
        return (*said, *self._wait(_Waiting.CONTESTED, self._contest))

    # --- what is wanted ---------------------------------------------------------------------------------------------

    def update(self, value: bytes) -> Actions:
        """The key is to have another value."""
        if value == self._value:
            return ()
        self._value = value
        # What was refused with the old value may be taken with the new one.
        waited = self._wait_no_longer() if self._waiting is _Waiting.FAILED else ()
        return (*waited, *self._go_on())

    def withhold(self) -> Actions:
        """The key is not to be there."""
        return self._wants(Wish.WITHHELD)

    def offer(self) -> Actions:
        """It is."""
        return self._wants(Wish.OFFERED)

    def _wants(self, wish: Wish) -> Actions:
        if self._wish is Wish.PAUSED:
            self._before_pause = wish
            return ()
        if self._wish in (Wish.ENDED, wish):
            return ()
        self._wish = wish
        self._was_alive = self._was_alive and self._is_ours
        self._contest.reset()
        return (*self._wait_no_longer(), *self._go_on())

    def pause(self) -> Actions:
        """Another one of ours is to take its place: write nothing until that is settled."""
        if self._wish in (Wish.ENDED, Wish.PAUSED):
            return ()
        self._before_pause, self._wish = self._wish, Wish.PAUSED
        return self._wait_no_longer()

    def resume(self) -> Actions:
        """It came to nothing, and may have left anything at the key."""
        if self._wish is not Wish.PAUSED:
            return ()
        self._wish = self._before_pause
        self._unsure = True
        return self._go_on()

    def take_back(self, *, remove: bool) -> Actions:
        """
        It is wanted no longer.

        :param remove: whether the key is to be deleted by itself; otherwise it goes with its lease, or another one has
            it.
        """
        if self._has_left or self._is_over:
            return ()
        self._wish = Wish.ENDED
        self.removes = remove
        waited = self._wait_no_longer()
        return (*waited, *(self._go_on() if remove else self._leave()))

    def stopped(self) -> Actions:
        """There is no client any more, and so nothing that could be done."""
        leave = () if self._has_left else self._leave()
        self._wish = Wish.ENDED
        self._is_over = True
        return (*self._wait_no_longer(), *leave)

    def left(self, error: Exception | None) -> Actions:
        """The lease is needed no longer, or could not be given back, and ends by its TTL."""
        if error is not None:
            self.failure = error
        self._is_over = True
        return ()

    # --- what comes of it -------------------------------------------------------------------------------------------

    def _go_on(self) -> Actions:
        """Do what is to be done."""
        if self._under_way is not None or self._waiting is not _Waiting.NO or self._has_left:
            return ()
        if self._wish is Wish.OFFERED and self.lease and not self._is_as_wanted:
            return self._write(Put(self._value, self.lease))
        if self._wish in (Wish.WITHHELD, Wish.ENDED) and self._may_be_there:
            return self._write(Remove(self.lease))
        if self._wish is Wish.ENDED:
            # It is gone, whatever went wrong before.
            self.failure = None
            return (*((Linger(self._late),) if self._late else ()), *self._leave())
        return ()

    def _write(self, write: Write) -> Actions:
        self._under_way = write
        self._meanwhile = None
        self.writes += 1
        return (write,)

    def _wait(self, why: _Waiting, backoff: Backoff) -> Actions:
        self._waiting = why
        return (Wait(backoff.next()),)

    def _wait_no_longer(self) -> Actions:
        if self._waiting is _Waiting.NO:
            return ()
        self._waiting = _Waiting.NO
        return (WaitNoLonger(),)

    def _leave(self) -> Actions:
        self._has_left = True
        self._under_way = None
        return (Leave(),)

    def _give_up_unless_patient(self, error: Exception) -> Actions:
        if self._patient or self.registered or self._wish is Wish.ENDED:
            return ()
        return (GiveUp(error),)
