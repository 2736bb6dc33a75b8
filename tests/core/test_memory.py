"""Page buffer and free list against a bytearray and a dict, in one memory that is short."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.core.building import rooms

PAGE = 2048
FEW_PAGES = 4  # of a ring of pages when it is made
LENGTHS = st.one_of(st.integers(0, 40), st.sampled_from([PAGE - 1, PAGE, PAGE + 1]), st.integers(0, 5 * PAGE))
FILLINGS = itertools.cycle(bytes((seed + at) % 251 for at in range(6 * PAGE)) for seed in range(17))


def ring_cost(pages: int) -> int:
    """Of the ring of a buffer that has had so many pages at once."""
    capacity = FEW_PAGES
    while capacity < pages:
        capacity *= 2
    return rooms().cost(8 + 8 * capacity) if pages > 1 else 0


class Buffered(RuleBasedStateMachine):
    """Two buffers and a free list share the memory. What it says is true at every step, whatever runs out."""

    @initialize(pages=st.integers(3, 40), size=st.sampled_from([8, 24, 25, 56, 700]))
    def begin(self, pages: int, size: int) -> None:
        self.limit = 2 * pages * PAGE  # one half is for flows
        self.memory = rooms().Memory(self.limit)
        self.buffers = [rooms().PageBuffer(self.memory) for _ in range(2)]
        self.models = [bytearray(), bytearray()]
        self.begun = [0, 0]  # where the first page begins, of all that was ever appended
        self.most_pages = [0, 0]
        self.things = rooms().FreeList(self.memory, size)
        self.allocated: dict[int, bytes] = {}
        self.size = size

    def pages(self, which: int, more: int = 0) -> int:
        length = len(self.models[which]) + more
        return -(-(self.begun[which] + length) // PAGE) if length else 0

    @rule(which=st.integers(0, 1), length=LENGTHS, have=st.sampled_from([0, 0, 0, PAGE, 20 * PAGE]))
    def append(self, which: int, length: int, have: int) -> None:
        octets = next(FILLINGS)[:length]
        pages = self.pages(which, length)
        before, had = self.memory.used, self.pages(which)
        if self.buffers[which].append(octets, have):
            self.models[which] += octets
            self.most_pages[which] = max(self.most_pages[which], pages)
        else:
            # Refused for want of memory alone: what it would have taken is more than its share of what there is.
            taken = rooms().cost(PAGE) * (pages - had) + ring_cost(pages)
            assert pages > had
            assert before + taken + have + pages * PAGE > self.limit // 2
            if had:
                self.most_pages[which] = max(self.most_pages[which], pages if self.memory.used > before else 0)

    @rule(which=st.integers(0, 1), length=LENGTHS)
    def drop(self, which: int, length: int) -> None:
        self.buffers[which].drop(length)
        del self.models[which][:length]
        self.begun[which] = (self.begun[which] + length) % PAGE if self.models[which] else 0
        self.most_pages[which] = self.most_pages[which] if self.models[which] else 0

    @precondition(lambda self: any(self.models))
    @rule(data=st.data(), write=st.booleans())
    def compare(self, data: st.DataObject, write: bool) -> None:
        which = data.draw(st.sampled_from([at for at in range(2) if self.models[at]]))
        model, buffer = self.models[which], self.buffers[which]
        at = data.draw(st.integers(0, len(model) - 1))
        stop = data.draw(st.integers(at, len(model)))
        octets = bytearray(model[at:stop])
        for place in data.draw(st.lists(st.integers(0, max(0, len(octets) - 1)), max_size=3)) if octets else ():
            octets[place] ^= 0x55
        differ, left = buffer.compare(at, bytes(octets), write)
        unlike = sum(one != other for one, other in zip(octets, model[at:stop], strict=True))
        assert unlike <= differ <= len(octets)
        assert (differ == 0) == (unlike == 0)
        assert left == (model[at:stop] if write else octets)

    @precondition(lambda self: any(self.models))
    @rule(data=st.data())
    def look_anywhere(self, data: st.DataObject) -> None:
        which = data.draw(st.sampled_from([at for at in range(2) if self.models[at]]))
        at = data.draw(st.integers(0, len(self.models[which]) - 1))
        length = data.draw(st.integers(1, 3 * PAGE))
        found = self.buffers[which].span(at, length)
        assert found == self.models[which][at : at + len(found)]
        # It ends where it was told to, with what is kept, or at a page's end.
        whole = min(length, len(self.models[which]) - at)
        assert len(found) == whole or (self.begun[which] + at + len(found)) % PAGE == 0

    @rule()
    def allocate(self) -> None:
        spare, used = self.things.spare, self.memory.used
        number = self.things.allocate()
        if number is None:
            assert spare == 0
            assert used + rooms().cost(self.size) > self.limit // 2 - 16 or self.memory.spare
        else:
            self.allocated[number] = next(FILLINGS)[: self.size]
            self.things.write(number, self.allocated[number])

    @precondition(lambda self: self.allocated)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.allocated)))
        assert self.things.read(number) == self.allocated.pop(number)
        self.things.free(number)

    @rule(count=st.integers(1, 80))
    def allocate_and_free_many(self, count: int) -> None:
        numbers = [number for number in (self.things.allocate() for _ in range(count)) if number is not None]
        for number in numbers:
            self.things.write(number, bytes(self.size))
        for number in numbers:
            self.things.free(number)

    @invariant()
    def what_is_kept_is_what_was_said(self) -> None:
        for buffer, model in zip(self.buffers, self.models, strict=True):
            assert len(buffer) == len(model)
            read = b""
            while len(read) < len(model):
                read += buffer.span(len(read), len(model))
            assert read == model
        for number, octets in self.allocated.items():
            assert self.things.read(number) == octets

    @invariant()
    def memory_is_what_they_have(self) -> None:
        used = rooms().cost(self.size) * len(self.allocated)
        for which in range(2):
            used += rooms().cost(PAGE) * self.pages(which) + ring_cost(self.most_pages[which])
        assert self.memory.used == used
        assert self.things.allocated == len(self.allocated)
        assert self.things.spare <= 64
        # Free pages and free things, and nothing else, are kept for the next to ask.
        assert (self.memory.spare - self.things.spare * rooms().cost(self.size)) % rooms().cost(PAGE) == 0
        assert self.memory.used + self.memory.spare <= self.limit

    def teardown(self) -> None:
        if not hasattr(self, "memory"):
            return
        for buffer in self.buffers:
            buffer.drop(2**32 - 1)
        for number in self.allocated:
            self.things.free(number)
        self.things.close()
        self.memory.close()
        assert (self.memory.used, self.memory.spare) == (0, 0)


TestBuffered = Buffered.TestCase
TestBuffered.settings = settings(stateful_step_count=40)


@pytest.mark.parametrize("step", [1, 700, PAGE, 3 * PAGE + 1])
def test_a_buffer_that_is_written_and_read_for_long_keeps_its_order(step: int) -> None:
    """Its ring of pages goes round, and grows when it is not at its beginning."""
    memory = rooms().Memory(1 << 22)
    buffer, model = rooms().PageBuffer(memory), bytearray()
    for turn in range(300):
        octets = next(FILLINGS)[: step + turn % 3]
        assert buffer.append(octets)
        model += octets
        if len(model) > (FEW_PAGES << turn // 100) * PAGE:
            buffer.drop(len(model) // 2 + 1)
            del model[: len(model) // 2 + 1]
        for at in (0, len(model) // 2, len(model) - 1):
            assert buffer.compare(at, bytes(model[at:]), False)[0] == 0
    buffer.drop(len(model))
    assert memory.used == 0


def test_who_has_much_elsewhere_is_refused_first() -> None:
    memory = rooms().Memory(40 * PAGE)
    buffer = rooms().PageBuffer(memory)
    assert not buffer.append(b"x", 20 * PAGE)
    assert memory.used == memory.spare == len(buffer) == 0
    assert buffer.append(b"x", 18 * PAGE)
    assert buffer.append(bytes(PAGE - 1), 20 * PAGE), "there is room in the page that is begun"
    assert not buffer.append(b"x", 20 * PAGE)
    assert buffer.compare(0, b"x" + bytes(PAGE - 1), False)[0] == 0
    buffer.drop(PAGE)


def test_an_append_that_fails_halfway_leaves_what_was_there() -> None:
    memory = rooms().Memory(16 * PAGE)
    buffer = rooms().PageBuffer(memory)
    assert buffer.append(b"abc")
    assert not buffer.append(bytes(8 * PAGE))
    assert buffer.span(0, 9) == b"abc"
    assert buffer.append(b"def")
    assert buffer.span(0, 9) == b"abcdef"
    buffer.drop(6)
    assert memory.used == 0


def test_of_what_is_given_back_so_many_are_kept_and_lent_again() -> None:
    memory = rooms().Memory(1 << 20)
    things = rooms().FreeList(memory, 100)
    numbers = [things.allocate() for _ in range(200)]
    assert memory.used == 200 * rooms().cost(100)
    for number in numbers:
        things.free(number)
    assert (things.spare, things.allocated, memory.used, memory.spare) == (64, 0, 0, 64 * rooms().cost(100))
    again = [things.allocate() for _ in range(65)]
    assert (things.spare, memory.used, memory.spare) == (0, 65 * rooms().cost(100), 0)
    for number in again:
        things.free(number)
    things.close()
    assert memory.spare == 0


def test_free_pages_give_way_to_what_is_asked_for() -> None:
    memory = rooms().Memory(16 * PAGE)
    buffer = rooms().PageBuffer(memory)
    assert buffer.append(bytes(3 * PAGE))
    buffer.drop(3 * PAGE)
    assert memory.spare == 3 * rooms().cost(PAGE)
    flows = list(itertools.takewhile(lambda address: address is not None, (memory.take_flow(1000) for _ in range(99))))
    assert len(flows) == 16 * PAGE // rooms().cost(1000), "as many as if no page were free"
    assert memory.used <= 16 * PAGE
    assert memory.spare == 0
    assert not buffer.append(b"x")
    for address in flows:
        memory.give_flow(address, 1000)
    assert memory.used == 0


@pytest.mark.parametrize(("size", "taken"), [(1, 32), (24, 32), (25, 48), (40, 48), (41, 64), (PAGE, PAGE + 16)])
def test_what_is_lent_is_counted_as_malloc_takes_it(size: int, taken: int) -> None:
    assert rooms().cost(size) == taken
