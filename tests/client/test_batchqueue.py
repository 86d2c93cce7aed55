"""What may travel together, and in which order. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from twisted_etcd.client.batchqueue import MAX_BYTES, MAX_OPERATIONS, BatchQueue

EVERY = 10**6


@dataclass(eq=False)
class Put:
    key: bytes
    number: int = 0
    size: int = 1
    over: bool = False


def keys(batch: list[Put]) -> str:
    return b"".join(put.key for put in batch).decode()


def numbers(batch: list[Put]) -> list[int]:
    return [put.number for put in batch]


def queue_of(*puts: Put, ordered: bool = True) -> BatchQueue[Put]:
    queue: BatchQueue[Put] = BatchQueue(ordered=ordered)
    for put in puts:
        queue.put(put)
    return queue


def letters(text: str) -> list[Put]:
    return [Put(letter.encode(), number) for number, letter in enumerate(text)]


# --- what goes together ---------------------------------------------------------------------------------------------


def test_all_that_wait_go_together_in_their_order() -> None:
    queue = queue_of(*letters("abc"))
    assert keys(queue.take(EVERY)) == "abc"
    assert queue.take(EVERY) == []


def test_no_more_than_were_asked_for() -> None:
    queue = queue_of(*letters("abcde"))
    assert [keys(queue.take(2)) for _ in range(4)] == ["ab", "cd", "e", ""]


def test_no_more_than_a_transaction_takes() -> None:
    queue = queue_of(*[Put(str(number).encode()) for number in range(MAX_OPERATIONS + 2)])
    assert [len(queue.take(EVERY)) for _ in range(3)] == [MAX_OPERATIONS, 2, 0]


def test_no_more_bytes_than_a_batch_takes() -> None:
    half = MAX_BYTES // 2
    queue = queue_of(Put(b"a", size=half), Put(b"b", size=half), Put(b"c", size=1))
    assert [keys(queue.take(EVERY)) for _ in range(2)] == ["ab", "c"]


def test_what_is_larger_than_a_batch_goes_alone() -> None:
    queue = queue_of(Put(b"a"), Put(b"b", size=MAX_BYTES + 1), Put(b"c"))
    assert [keys(queue.take(EVERY)) for _ in range(3)] == ["a", "b", "c"]


def test_who_is_over_does_not_go() -> None:
    puts = letters("abc")
    queue = queue_of(*puts)
    puts[1].over = True
    assert keys(queue.take(EVERY)) == "ac"


# --- one key --------------------------------------------------------------------------------------------------------


def test_a_key_is_in_one_batch_at_a_time() -> None:
    puts = letters("aba")
    queue = queue_of(*puts)
    assert numbers(queue.take(EVERY)) == [0, 1]
    assert queue.take(EVERY) == []
    queue.release(puts[1])
    assert queue.take(EVERY) == []
    queue.release(puts[0])
    assert numbers(queue.take(EVERY)) == [2]


def test_reads_of_one_key_go_together() -> None:
    queue = queue_of(*letters("aaa"), ordered=False)
    assert keys(queue.take(EVERY)) == "aaa"


def test_who_gave_up_while_waiting_for_its_key_is_passed_over() -> None:
    puts = letters("aaa")
    queue = queue_of(*puts)
    queue.take(EVERY)
    puts[1].over = True
    queue.release(puts[1])
    assert queue.take(EVERY) == []
    queue.release(puts[0])
    assert numbers(queue.take(EVERY)) == [2]


def test_who_gave_up_before_it_was_sent_makes_room_for_the_next() -> None:
    puts = letters("aa")
    queue = queue_of(*puts)
    puts[0].over = True
    queue.release(puts[0])
    assert numbers(queue.take(EVERY)) == [1]


def test_a_key_that_is_free_again_leaves_nothing_behind() -> None:
    puts = letters("aab")
    queue = queue_of(*puts)
    taken = queue.take(EVERY)
    while taken:
        for put in taken:
            queue.release(put)
        taken = queue.take(EVERY)
    assert not queue._first  # noqa: SLF001 - what is kept of a key is seen nowhere else
    assert not queue._followers  # noqa: SLF001


# --- what the server takes ------------------------------------------------------------------------------------------


def test_a_batch_that_was_refused_goes_again_in_halves_and_first() -> None:
    puts = letters("abcde")
    queue = queue_of(*puts)
    batch = queue.take(EVERY)
    queue.put(Put(b"z"))
    queue.split(batch)
    assert [keys(queue.take(EVERY)) for _ in range(3)] == ["ab", "cde", "z"]


def test_halves_are_halved_until_each_is_alone() -> None:
    queue = queue_of(*letters("abc"))
    alone = []
    while batch := queue.take(EVERY):
        if len(batch) == 1:
            alone.append(keys(batch))
        else:
            queue.split(batch)
    assert alone == ["a", "b", "c"]


def test_a_half_loses_who_gave_up_meanwhile() -> None:
    puts = letters("abcd")
    queue = queue_of(*puts)
    queue.split(queue.take(EVERY))
    puts[0].over = puts[1].over = puts[2].over = True
    assert keys(queue.take(EVERY)) == "d"


def test_a_server_that_takes_fewer_operations_is_not_asked_for_more_again() -> None:
    queue = queue_of(*[Put(str(number).encode()) for number in range(200)])
    count = MAX_OPERATIONS
    while count > 8:
        queue.too_many(count)
        count = queue.limit
    for _ in range(100):
        queue.fitted(8)
    assert len(queue.take(EVERY)) == 8


def test_after_answers_that_were_too_large_batches_are_small_and_grow_again() -> None:
    queue = queue_of(*[Put(str(number).encode()) for number in range(500)])
    queue.too_large(64)
    assert len(queue.take(EVERY)) == 32
    queue.fitted(3)
    assert queue.most == 32
    queue.fitted(32)
    assert len(queue.take(EVERY)) == 33
    for _ in range(500):
        queue.fitted(queue.most)
    assert queue.most == MAX_OPERATIONS


# --- any order of events --------------------------------------------------------------------------------------------


@dataclass
class World:
    """A queue, its batches under way, and what etcd has applied of each key."""

    queue: BatchQueue[Put] = field(default_factory=lambda: BatchQueue(ordered=True))
    under_way: list[list[Put]] = field(default_factory=list)
    asked: list[Put] = field(default_factory=list)
    applied: list[Put] = field(default_factory=list)

    def ask(self, key: int) -> None:
        put = Put(b"%d" % key, len(self.asked))
        self.asked.append(put)
        self.queue.put(put)

    def send(self, count: int) -> None:
        if batch := self.queue.take(count):
            busy = {put.key for each in self.under_way for put in each}
            assert not busy.intersection(put.key for put in batch)
            assert len({put.key for put in batch}) == len(batch)
            self.under_way.append(batch)

    def answer(self, which: int) -> None:
        if self.under_way:
            batch = self.under_way.pop(which % len(self.under_way))
            self.applied += batch
            for put in batch:
                put.over = True
                self.queue.release(put)

    def refuse(self, which: int) -> None:
        if self.under_way:
            batch = self.under_way.pop(which % len(self.under_way))
            for put in batch:
                if put.over:
                    self.queue.release(put)
            self.queue.split([put for put in batch if not put.over])

    def give_up(self, which: int) -> None:
        waiting = [put for put in self.asked if not put.over]
        if waiting:
            put = waiting[which % len(waiting)]
            put.over = True
            if not any(put in batch for batch in self.under_way):
                self.queue.release(put)

    def finish(self) -> None:
        while self.under_way or len(self.queue):
            self.send(EVERY)
            self.answer(0)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(0, 4)),
        st.tuples(st.just("send"), st.integers(1, 5)),
        st.tuples(st.just("answer"), st.integers(0, 9)),
        st.tuples(st.just("refuse"), st.integers(0, 9)),
        st.tuples(st.just("give_up"), st.integers(0, 99)),
    ),
    max_size=60,
)


@given(STEPS)
def test_puts_to_one_key_are_applied_in_the_order_in_which_they_were_asked_for(steps: list[tuple[str, int]]) -> None:
    world = World()
    for step, number in steps:
        getattr(world, step)(number)
    given_up = {put.number for put in world.asked if put.over and put not in world.applied}
    world.finish()
    for key in {put.key for put in world.asked}:
        order = [put.number for put in world.applied if put.key == key]
        assert order == sorted(set(order))
    # and nobody is forgotten
    assert {put.number for put in world.applied} | given_up == {put.number for put in world.asked}
