# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Give back the memory that only start-up, or a burst, needed."""

from __future__ import annotations

import gc
import os
import sys

from forza._libc import libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import FileIO

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
        lambda: _drop_zeros(loop),
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


def _drop_zeros(loop: object) -> None:
    """Real: give back pages that hold only zeros.

    uvloop's Loop contains a buffer for its stream transports, of which forza has
    none, and making the loop has touched every page of it (240 kB). The interpreter's
    table of names has grown a moment ago, and is half empty (80 kB). A private page of
    zeros reads the same after the kernel has taken it back.

    Nobody may write there between look and taking. The loop's own pages are used in
    its own thread, this one. Other large blocks could be anybody's, so these are
    looked at in a process of one thread only. Of what the looking itself makes, small
    objects are elsewhere, and the page that was read holds more than zeros.
    """
    zeros, madvise = bytes(PAGE), libc("madvise")
    with open("/proc/self/mem", "rb", 0) as memory:
        blocks = [(id(loop), type(loop).__basicsize__)]
        if len(os.listdir("/proc/self/task")) == 1:
            blocks += _large_blocks(memory)
        for block, size in blocks:
            for page in range(-(-block // PAGE) * PAGE, block + size - PAGE + 1, PAGE):
                memory.seek(page)
                if memory.read(PAGE) == zeros:
                    madvise(page, PAGE, _DONTNEED)


def _large_blocks(memory: FileIO) -> Iterator[tuple[int, int]]:
    """Find malloc's heap, and the blocks that it (glibc's) has mapped one by one:
    these begin with a page, with nothing before them and with their size, marked by
    its second bit."""
    with open("/proc/self/maps", "rb") as maps:
        for line in maps:
            where, mode, *_, last = line.split()
            page, end = (int(n, 16) for n in where.split(b"-"))
            if last == b"[heap]":
                yield page, end - page
            while mode == b"rw-p" and last == b"0" and page < end:
                memory.seek(page)
                before, size = memory.read(8), int.from_bytes(memory.read(8), "little")
                # Of less than a page there is none: other things may begin with a 2.
                fits = size % PAGE == 2 and PAGE < size <= end - page + 2
                if fits and not any(before):
                    yield page, size - 2
                    page += size - 2
                else:
                    page += PAGE


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
