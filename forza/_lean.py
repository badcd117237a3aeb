# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""The lean runtime: uvloop and orjson without what they import and forza never runs.

`import uvloop, orjson` brings 160 modules and 22 MB, most of it for paths that
forza does not take: TLS, subprocesses, executors, tracebacks, enumerations.  While
the two are imported, `load` puts small stand-ins in the place of those modules, and
takes every one of them out of `sys.modules` again: whoever imports `ssl` afterwards
gets the real one.  `settle` hands back the memory that only start-up needed.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Iterator
    from typing import Any, NoReturn

ModuleType = type(sys)

# What the tests have run with.  Anything else is tried in a forked child first.
TESTED_PYTHON = ((3, 11), (3, 12), (3, 13))
TESTED = {"uvloop": ("0.23.0",), "orjson": ("3.13.0",)}


def load() -> tuple[Callable[[], AbstractEventLoop], bool]:
    """Import uvloop and orjson; return what makes a loop, and whether it is lean.

    Plain imports are used when FORZA_RUNTIME=plain asks for them, when asyncio or
    uvloop is there already, and, with one line on stderr, when anything about the
    lean runtime surprises us.
    """
    wanted = os.environ.get("FORZA_RUNTIME") != "plain"
    if not wanted or "asyncio" in sys.modules or "uvloop" in sys.modules:
        return _load_plain(), False
    try:
        if not _is_tested():
            _try_in_child()
        return _load_lean(), True
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        sys.stderr.write(f"forza: no lean runtime, it takes more memory ({reason})\n")
        return _load_plain(), False


def _load_plain() -> Callable[[], AbstractEventLoop]:
    import orjson  # noqa: F401
    import uvloop

    return uvloop.new_event_loop


class _Later:
    """A name of a module that is imported when the name is first used."""

    __slots__ = ("_module", "_name")

    def __init__(self, module: str, name: str) -> None:
        self._module = module
        self._name = name

    def _real(self) -> Any:
        __import__(self._module)
        return getattr(sys.modules[self._module], self._name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._real()(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real(), name)

    def __instancecheck__(self, instance: object) -> bool:
        # Nothing can be an instance of a class whose module nobody has imported.
        module = sys.modules.get(self._module)
        return module is not None and isinstance(instance, getattr(module, self._name))


class _Package(ModuleType):
    """A package whose `__init__` runs on the first use of anything it lacks.

    `__path__` is among what it lacks, and the import system asks for that before it
    imports any submodule: so nobody ever meets a half of the package.
    """

    def __getattr__(self, name: str) -> Any:
        spec = self.__spec__
        assert spec is not None and spec.loader is not None
        self.__class__ = ModuleType
        self.__path__ = spec.submodule_search_locations
        spec.loader.exec_module(self)
        return getattr(self, name)


def _package(name: str) -> ModuleType:
    """Make a package without running its `__init__`."""
    from _frozen_importlib import module_from_spec

    for finder in sys.meta_path:
        spec = finder.find_spec(name, None)
        if spec is not None:
            return module_from_spec(spec)
    raise ModuleNotFoundError(f"No module named {name!r}", name=name)


class _NeverRaisedError(Exception):
    """For `except` clauses of paths that the lean runtime does not take."""


def _no_tls(*args: object) -> NoReturn:
    raise NotImplementedError(
        "no TLS through the loop of the lean runtime: "
        "wrap a socket with ssl yourself, or set FORZA_RUNTIME=plain"
    )


def _later(module: str, names: str) -> dict[str, object]:
    return {name: _Later(module, name) for name in names.split()}


def _public(module: ModuleType) -> dict[str, object]:
    return {name: value for name, value in vars(module).items() if name[:2] != "__"}


def _stand_ins() -> dict[str, dict[str, object]]:
    """Return, for each module to replace, all that its importer takes from it."""
    import _collections
    import _collections_abc
    import _datetime
    import _functools
    import _signal
    import _socket
    import _thread
    import _warnings

    class main:
        ident = _thread.get_ident()

    return {
        # uvloop: SSLContext to check arguments, the others inside SSLProtocol only.
        "ssl": {
            "SSLContext": _Later("ssl", "SSLContext"),
            "create_default_context": _Later("ssl", "create_default_context"),
            "MemoryBIO": _no_tls,
            "SSLError": _NeverRaisedError,
            "SSLWantReadError": _NeverRaisedError,
            "SSLSyscallError": _NeverRaisedError,
            "SSLZeroReturnError": _NeverRaisedError,
            "CertificateError": _NeverRaisedError,
            "SSL_ERROR_WANT_READ": 2,
            "SSL_ERROR_WANT_WRITE": 3,
            "SSL_ERROR_SYSCALL": 5,
        },
        # uvloop: refuses coroutine functions as callbacks of signals and executors;
        # isgenerator is taken and never called.
        "inspect": {
            "isgenerator": _Later("inspect", "isgenerator"),
            "iscoroutinefunction": _is_coroutine_function,
        },
        # uvloop and _asyncio: where a handle or a task was made, in debug mode.
        "traceback": _later(
            "traceback", "StackSummary walk_stack format_list extract_stack"
        ),
        # uvloop: its own subprocess transport; forza spawns by itself.
        "subprocess": {
            "PIPE": -1,
            "STDOUT": -2,
            "DEVNULL": -3,
            "SubprocessError": _NeverRaisedError,
        },
        # uvloop: run_in_executor, which builds its pool on first use.
        "concurrent.futures": _later("concurrent.futures", "ThreadPoolExecutor Future"),
        # uvloop: signal.py only wraps these functions to return enumerations.
        "signal": _public(_signal),
        # uvloop: the constants, the errors and the pair that signals wake the loop
        # by are all in _socket.  socket.socket is made for others, and asked about:
        # the loop counts its use of such a socket, so that close() can wait.
        "socket": {
            **_public(_socket),
            "socket": _Later("socket", "socket"),
            "AddressFamily": int,
            "SocketKind": int,
        },
        # uvloop takes the types that are written in C; debug builds of it count handles.
        "collections": {
            "deque": _collections.deque,
            "OrderedDict": _collections.OrderedDict,
            "Counter": _Later("collections", "Counter"),
            "abc": _collections_abc,
        },
        "functools": {"partial": _functools.partial},
        # _weakrefset, for uvloop's weakref: one type.
        "types": {"GenericAlias": type(list[int])},
        # uvloop
        "warnings": {"warn": _warnings.warn},
        # uvloop: a thread to shut its executor down, and which one is the main one.
        "threading": {
            "Thread": _Later("threading", "Thread"),
            "main_thread": lambda: main,
        },
        # _asyncio: the policy when no loop runs, and what repr() and stacks show.
        "asyncio.events": _later("asyncio.events", "get_event_loop_policy"),
        "asyncio.base_futures": _later("asyncio.base_futures", "_future_repr"),
        "asyncio.base_tasks": _later(
            "asyncio.base_tasks", "_task_repr _task_get_stack _task_print_stack"
        ),
        # _asyncio keeps it for awaitables that are no plain coroutine; uvloop only
        # looks for debug_wrapper, which was removed in Python 3.8.
        "asyncio.coroutines": {"iscoroutine": _is_coroutine},
        # uvloop: its logger, which stays silent unless something goes wrong.
        "asyncio.log": {"logger": _Later("asyncio.log", "logger")},
        # uvloop imports these three and takes nothing from them.
        "asyncio.base_events": {},
        "asyncio.futures": {},
        "asyncio.sslproto": {},
        # orjson compares types with these: values of them become the business of
        # `default`.  uvloop has one enumeration, for watching files.
        "uuid": _later("uuid", "UUID"),
        "enum": {"EnumMeta": _Later("enum", "EnumMeta"), "IntEnum": int},
        "dataclasses": _later("dataclasses", "_FIELD"),
        # orjson: the base class of its JSONDecodeError, itself a ValueError.
        "json": {"JSONDecodeError": ValueError},
        # orjson: the C half is all it takes; before Python 3.12 datetime.py builds a
        # whole second implementation only to throw it away.
        "datetime": _public(_datetime),
    }


# These four stay in use for good, so they answer what asyncio's and inspect's own do.


def _is_coroutine(value: object) -> bool:
    from _collections_abc import Coroutine

    if sys.version_info < (3, 12) and type(value) is type(_ for _ in ()):
        return True
    return isinstance(value, Coroutine)


def _is_coroutine_function(value: object) -> bool:
    return bool(getattr(getattr(value, "__code__", None), "co_flags", 0) & 0x80)


def _is_future(value: Any) -> bool:
    return (
        hasattr(value.__class__, "_asyncio_future_blocking")
        and value._asyncio_future_blocking is not None
    )


def _ensure_future(value: Any, *, loop: Any = None) -> Any:
    if loop is not None:
        if _is_coroutine(value):
            return loop.create_task(value)
        if _is_future(value) and value.get_loop() is loop:
            return value
    return _Later("asyncio", "ensure_future")(value, loop=loop)


def _asyncio_names() -> dict[str, object]:
    """Return what uvloop takes from asyncio itself: most of it is the real thing."""
    import _asyncio
    from asyncio import exceptions, protocols, transports

    return {
        "CancelledError": exceptions.CancelledError,
        "InvalidStateError": exceptions.InvalidStateError,
        "TimeoutError": exceptions.TimeoutError,
        "BaseProtocol": protocols.BaseProtocol,
        "Protocol": protocols.Protocol,
        "Transport": transports.Transport,
        "Future": _asyncio.Future,
        "Task": _asyncio.Task,
        "get_event_loop": _asyncio.get_event_loop,
        "_get_running_loop": _asyncio._get_running_loop,
        "_set_running_loop": _asyncio._set_running_loop,
        "iscoroutine": _is_coroutine,
        "isfuture": _is_future,
        "ensure_future": _ensure_future,
        # create_connection by name, create_server, run_in_executor.
        **_later("asyncio", "gather wait wrap_future"),
    }


def _load_lean() -> Callable[[], AbstractEventLoop]:
    """Import both with the stand-ins in place; leave no trace of them either way."""
    before = set(sys.modules)
    placed: list[str] = []
    try:
        import concurrent

        asyncio, uvloop = _package("asyncio"), _package("uvloop")
        sys.modules.update(asyncio=asyncio, uvloop=uvloop)
        for name, names in _stand_ins().items():
            if name not in sys.modules:
                _place(name, names)
                placed.append(name)
        sys.modules["collections.abc"] = sys.modules["_collections_abc"]
        placed.append("collections.abc")
        names = _asyncio_names()
        vars(asyncio).update(names)
        import orjson  # noqa: F401
        from uvloop.loop import Loop

        for name in names:
            delattr(asyncio, name)
        for package in asyncio, uvloop:
            del package.__path__
            package.__class__ = _Package
    except BaseException:
        for name in set(sys.modules) - before:
            del sys.modules[name]
        raise
    finally:
        for name in placed:
            _take_away(name)
    return Loop


def _place(name: str, names: dict[str, object]) -> None:
    module = sys.modules[name] = ModuleType(name)
    vars(module).update(names)
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, module)


def _take_away(name: str) -> None:
    sys.modules.pop(name, None)
    parent, _, child = name.rpartition(".")
    if parent in sys.modules:
        vars(sys.modules[parent]).pop(child, None)


def _is_tested() -> bool:
    """Whether the tests have run with just these versions (one stat for each)."""
    if sys.version_info[:2] not in TESTED_PYTHON:
        return False
    for name, versions in TESTED.items():
        home = os.path.dirname(os.path.dirname(_package(name).__file__ or ""))
        if not any(os.path.exists(f"{home}/{name}-{v}.dist-info") for v in versions):
            return False
    return True


def _try_in_child() -> None:
    """Load and check in a forked child, where even a crash costs nothing."""
    readable, writable = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            import _signal

            _signal.alarm(10)
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, 1)
            os.dup2(null, 2)
            _check(_load_lean())
            os.write(writable, b"ok")
        except BaseException as error:
            os.write(writable, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(writable)
    with open(readable, encoding="utf-8") as pipe:
        said = pipe.read()
    _, status = os.waitpid(pid, 0)
    if said != "ok":
        raise ImportError(said or f"the trial ended with status {status}")


def _check(new_loop: Callable[[], AbstractEventLoop]) -> None:
    """Use each thing that forza uses once, and look for stand-ins left behind."""
    import _signal
    import orjson

    loop = new_loop()
    readable, writable = os.pipe()
    seen: list[str] = []

    async def wait() -> None:
        future = loop.create_future()
        loop.call_later(0.001, future.set_result, None)
        loop.add_reader(readable, read)
        loop.add_signal_handler(_signal.SIGUSR1, seen.append, "signal")
        os.write(writable, b"x")
        os.kill(os.getpid(), _signal.SIGUSR1)
        await future
        await loop.getaddrinfo(b"127.0.0.1", 1)
        while len(seen) < 2:
            await asyncio_sleep()

    def read() -> None:
        seen.append("reader")
        loop.remove_reader(readable)

    def asyncio_sleep() -> Any:
        future = loop.create_future()
        loop.call_later(0.001, future.set_result, None)
        return future

    loop.run_until_complete(wait())
    loop.close()
    value = {"a": [1, 2.5, None, True, "\u20ac"]}
    if orjson.loads(orjson.dumps(value)) != value:
        raise ImportError("orjson does not give back what it was given")
    for name in _stand_ins():
        if "." not in name and name in sys.modules:
            raise ImportError(f"{name} was imported")


def settle(loop: object) -> None:
    """Give back the memory that only start-up, or a burst, needed.

    Whatever a platform lacks (glibc, /proc, madvise) is left out.
    """
    import gc

    gc.collect()
    for step, args in ((_drop_buffer, (loop,)), (_unmap_clean_file_pages, ()), (_trim_heap, ())):
        try:
            step(*args)
        except (ImportError, AttributeError, OSError, ValueError):
            continue  # musl has no malloc_trim, gVisor no pagemap


def _drop_buffer(loop: object) -> None:
    """Give back the pages of the loop that hold only zeros: they read the same after.

    Real memory: uvloop's Loop contains a buffer of 256 kB for its stream transports,
    of which forza has none, and making the loop has touched every page of it.  Only
    the loop's own pages are looked at, since nothing is allocated inside them while we
    look.
    """
    zeros = bytes(PAGE)
    end = id(loop) + type(loop).__basicsize__
    with open("/proc/self/mem", "rb", 0) as memory:
        for address in range(-(-id(loop) // PAGE) * PAGE, end - PAGE + 1, PAGE):
            memory.seek(address)
            if memory.read(PAGE) == zeros:
                _madvise_dont_need(address, address + PAGE)


def _unmap_clean_file_pages() -> None:
    """Unmap code that start-up ran and the steady state may not.

    Not real memory, but counted as resident: the pages stay in the page cache and
    come back from there when they are touched.  Only mappings that nobody can write
    to, and that smaps says have no page of their own: what the dynamic linker has
    relocated is read-only by now too, and dropping that would be a crash.
    """
    for start, end, mode, path, anonymous in _mappings():
        if path[:1] == b"/" and b"w" not in mode and anonymous == 0:
            _madvise_dont_need(start, end)


def _trim_heap() -> None:
    """Real memory: malloc keeps what is freed until it is told to look."""
    _libc("malloc_trim")(0)


def _mappings() -> list[tuple[int, int, bytes, bytes, int]]:
    """Return start, end, mode, path and anonymous kB of each of our mappings."""
    found = []
    start = end = 0
    mode = path = b""
    with open("/proc/self/smaps", "rb") as smaps:
        for line in smaps:
            if line[:10] == b"Anonymous:":
                found.append((start, end, mode, path, int(line.split()[1])))
            elif line[:1] in b"0123456789abcdef":
                where, mode, _, _, _, *rest = line.split(None, 5)
                start, end = (int(n, 16) for n in where.split(b"-"))
                path = rest[0].rstrip() if rest else b""
    return found


def _madvise_dont_need(start: int, end: int) -> None:
    _libc("madvise")(start, end - start, 4)


def _libc(name: str) -> Callable[..., int]:
    """Return a function of the C library; ctypes itself would cost 0.3 MB for it."""
    if name not in _functions:
        import _ctypes

        long = type("long", (_ctypes._SimpleCData,), {"_type_": "l"})
        kind = {"_flags_": _ctypes.FUNCFLAG_CDECL, "_restype_": long}
        address = _ctypes.dlsym(_ctypes.dlopen(None, 0), name)
        call = type("function", (_ctypes.CFuncPtr,), kind)(address)
        _functions[name] = lambda *args: call(*map(long, args))
    return _functions[name]


_functions: dict[str, Callable[..., int]] = {}
PAGE = os.sysconf("SC_PAGE_SIZE")
