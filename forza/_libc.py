# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Call the few functions of the C library that Python has no name for."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# The C type of all arguments and results, and that of the functions: made once.
_types: list[Any] = []


def libc(name: str) -> Callable[..., int]:
    """Return a function of the C library. Raises ImportError or OSError without it."""
    import _ctypes  # `ctypes` itself would cost 0.2 MB more

    if not _types:
        long = type("long", (_ctypes._SimpleCData,), {"_type_": "l"})
        kind = {"_flags_": _ctypes.FUNCFLAG_CDECL, "_restype_": long}
        _types.extend((long, type("function", (_ctypes.CFuncPtr,), kind)))
    long, function = _types
    address = _ctypes.dlsym(_ctypes.dlopen(None, 0), name)  # type: ignore[arg-type]
    call = function(address)
    return lambda *args: call(*map(long, args))
