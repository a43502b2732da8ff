# cython: language_level=3, freethreading_compatible=True, boundscheck=False, wraparound=False
# cython: autotestdict=False, subinterpreters_compatible=no
# cython: binding=False, embedsignature=True, embedsignature.format=clinic
"""Chooses the kernels to use; the other modules call them.

`FASTWS_KERNEL` names the kernels; by default they are the best ones that the CPU can run.
"""

cdef extern from *:
    """
    #if defined(__clang__)
    #define FASTWS_COMPILER "Clang " __clang_version__
    #elif defined(__GNUC__)
    #define FASTWS_COMPILER "GCC " __VERSION__
    #elif defined(_MSC_VER)
    #define FASTWS_COMPILER "MSC v." Py_STRINGIFY(_MSC_VER)
    #else
    #define FASTWS_COMPILER "unknown"
    #endif
    """
    const char* FASTWS_COMPILER
    const int CYTHON_HEX_VERSION

cdef extern from "kernels/sets.h" nogil:
    const fastws_kernels* fastws_kernels_by_rank(int rank, int compiled)
    void fastws_make_tables()

__all__ = ["available", "built_with", "compiled", "current", "use"]


def available():
    """Return the names of the kernels that this CPU can run, the best one first."""
    return names_of(0)


def compiled():
    """Return the names of all kernels of this build, the best one first."""
    return names_of(1)


cdef tuple names_of(int compiled):
    cdef int rank = 0
    names = []
    while fastws_kernels_by_rank(rank, compiled) is not NULL:
        names.append(fastws_kernels_by_rank(rank, compiled).name.decode())
        rank += 1
    return tuple(names)


def built_with():
    """Return the versions of Cython and of the compiler that built the extension."""
    cython = CYTHON_HEX_VERSION
    return {
        "cython": f"{cython >> 24}.{cython >> 16 & 0xff}.{cython >> 8 & 0xff}",
        "compiler": FASTWS_COMPILER.decode().strip(),
    }


def current():
    """Return the name of the kernels in use."""
    return kernels.name.decode()


def use(name):
    """Use other kernels from now on. No other thread may be decoding during this call.

    Raises:
        ValueError: if this CPU can run no kernels of this name.
    """
    global kernels
    names = available()
    if name not in names:
        raise ValueError(f"kernel must be one of {', '.join(names)}, not {name!r}")
    kernels = fastws_kernels_by_rank(names.index(name), 0)


fastws_make_tables()
kernels = fastws_kernels_by_rank(0, 0)
