# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""An engine's whole state as one flat image: the functions for Python.

Promises: an image that is incomplete, of another core, or impossible raises ValueError and changes nothing. Writing an
image does not change the engine, which may go on. Neither is done while a driver runs. Does not know where images are
kept.
"""

from libc.stdint cimport uint64_t, uint8_t

from nfmailguard.cext.core cimport Generation
from nfmailguard.cext.engine cimport Engine, Prepared
from nfmailguard.cext.generation cimport add_older_generation
from nfmailguard.cext.handover.cursor cimport Writer
from nfmailguard.cext.handover.layout cimport layout_of_core
from nfmailguard.cext.handover.loaded cimport (
    LOADED, LOADED_BROKEN, LOADED_FORMAT, LOADED_NOT, LOADED_ROOM, LOADED_RULES, Known, Loaded,
)
from nfmailguard.cext.handover.loading cimport load_core
from nfmailguard.cext.handover.parts cimport FORMAT
from nfmailguard.cext.handover.saving cimport save_core

REASONS = {
    LOADED_NOT: "it is not whole",
    LOADED_FORMAT: "it is another version's",
    LOADED_BROKEN: "it says what cannot be",
    LOADED_RULES: "flows in it are under rules that are not known",
    LOADED_ROOM: "limits.flows, limits.memory or limits.cookies leave no room for it",
}


def version():
    """(format, layout): an image with other numbers is not read."""
    return FORMAT, layout_of_core()


def size(Engine engine not None):
    """Bytes that an image of the engine's present state takes."""
    cdef Writer writer
    writer.data = NULL
    writer.size = writer.used = 0
    with nogil:
        save_core(engine.core, &writer)
    return writer.used


def save(Engine engine not None, uint8_t[::1] image not None):
    """Writes the state into ``image``, whose length must be what ``size`` returns, else ValueError is raised."""
    cdef Writer writer
    if image.shape[0] == 0:
        raise ValueError("an image has bytes")
    writer.data = &image[0]
    writer.size = <uint64_t> image.shape[0]
    writer.used = 0
    with nogil:
        save_core(engine.core, &writer)
    if writer.used != writer.size:
        raise ValueError(f"the image has {writer.size} bytes, the state {writer.used}")


def add_older(Engine engine not None, Prepared prepared not None):
    """Adds rules and settings for flows that are to be read under them; no new flow begins under them. Their number.

    Raises ValueError where the engine already has as many sets of rules as it can hold.
    """
    cdef Generation *generation = prepared.generation
    if generation == NULL:
        raise ValueError("published already")
    if not add_older_generation(engine.core, generation):
        raise ValueError("there are as many rules as there may be")
    prepared.generation = NULL
    return generation.number


def load(Engine engine not None, const uint8_t[::1] image not None, dict numbers not None, *, uint8_t states,
         uint8_t findings):
    """Reads the state from ``image`` into an engine that has seen no packet.

    ``numbers``: by generation number in the image, the engine's generation that takes its place; ``states``: number of
    session states; ``findings``: number of finding kinds. A ValueError says why it failed; nothing has changed then.
    """
    cdef Known known
    cdef Generation *generation
    cdef Loaded result
    cdef const uint8_t *data = &image[0] if image.shape[0] else NULL
    cdef uint64_t length = <uint64_t> image.shape[0]
    cdef int number
    if engine.core.flows.count or engine.core.counters.packets or engine.core.ring.head:
        raise ValueError("the engine has seen packets")
    for number in range(256):
        known.generations[number] = NULL
    for written, ours in numbers.items():
        generation = engine.core.published
        while generation != NULL and generation.number != <int> ours:
            generation = generation.older
        if generation == NULL or not 0 <= <int> written < 256:
            raise ValueError(f"there are no rules of number {ours}")
        known.generations[<int> written] = generation
    known.states, known.findings = states, findings
    with nogil:
        result = load_core(engine.core, &known, data, length)
    if result != LOADED:
        raise ValueError(REASONS[result])
