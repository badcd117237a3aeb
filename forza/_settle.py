# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Give back the memory that only start-up, or a burst, needed."""

from __future__ import annotations

import gc
import os
import sys

from forza._libc import libc

PAGE = os.sysconf("SC_PAGE_SIZE")
_PR_SET_THP_DISABLE = 41
_DONTNEED = 4  # MADV_DONTNEED


def settle(loop: object) -> None:
    """Give back the memory that only start-up, or a burst, needed.

    Takes a few milliseconds, and has to run in the loop's thread.  What a platform
    lacks (glibc, /proc) is left out.
    """
    # What is in each folder that was searched for modules: 30 kB of names.
    sys.path_importer_cache.clear()
    gc.collect()
    for step in (
        _refuse_huge_pages,
        lambda: _drop_buffer(loop),
        _trim_heap,
        _unmap_clean_file_pages,  # last, or the others bring some of them back
    ):
        try:
            step()
        except (ImportError, AttributeError, OSError, ValueError):
            continue


def _refuse_huge_pages() -> None:
    """Real: where huge pages are always on, two arenas may grow into one of 2 MB."""
    libc("prctl")(_PR_SET_THP_DISABLE, 1, 0, 0, 0)


def _drop_buffer(loop: object) -> None:
    """Real: give back the pages of the loop that hold only zeros (240 kB).

    uvloop's Loop contains a buffer for its stream transports, of which forza has
    none, and making the loop has touched every page of it.  A private page of zeros
    reads the same after the kernel has taken it back.  Only the loop's own pages are
    looked at, and in its own thread: so nobody writes there between look and taking.
    """
    zeros, madvise = bytes(PAGE), libc("madvise")
    first, end = -(-id(loop) // PAGE) * PAGE, id(loop) + type(loop).__basicsize__
    with open("/proc/self/mem", "rb", 0) as memory:
        for address in range(first, end - PAGE + 1, PAGE):
            memory.seek(address)
            if memory.read(PAGE) == zeros:
                madvise(address, PAGE, _DONTNEED)


def _trim_heap() -> None:
    """Real: malloc keeps what is freed until it is told to look (glibc only)."""
    libc("malloc_trim")(0)


def _unmap_clean_file_pages() -> None:
    """Not real, but counted as resident: unmap code that only start-up ran.

    The pages stay in the page cache, and come back from there when they are touched.
    Taken are the libraries' mappings that nobody can write to and of which, says
    smaps, no page is our own, neither here nor in swap.  "Not writable" alone would
    not do: what the dynamic linker has relocated is read-only by now, and without it
    the process crashes.
    """
    madvise = libc("madvise")
    where, library, ours = b"", False, b""
    with open("/proc/self/smaps", "rb") as smaps:
        for line in smaps:
            if line[:1] in b"0123456789abcdef":
                where, mode, _, _, inode, *_ = line.split(None, 5)
                library = mode in (b"r--p", b"r-xp") and inode != b"0"
            elif line[:10] == b"Anonymous:":
                ours = line.split()[1]
            elif library and line[:5] == b"Swap:" and ours == line.split()[1] == b"0":
                start, end = (int(n, 16) for n in where.split(b"-"))
                madvise(start, end - start, _DONTNEED)
