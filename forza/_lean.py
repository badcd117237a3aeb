# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""The lean runtime: uvloop and orjson without what they import and forza never runs.

Importing the two brings in 130 modules, most of them for paths that forza does not
take: TLS through the loop, its subprocesses, executors, debugging, odd types in JSON.
`load` puts small stand-ins in the place of those modules while the import runs, and
takes every one of them out of `sys.modules` again: whoever imports `ssl` afterwards
gets the real one, and `asyncio` completes itself when it is first used.
docs/lean-runtime.md has the figures and the traps.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Iterator
    from types import ModuleType
    from typing import Any, NoReturn

    Names = dict[str, object]
else:
    ModuleType = type(sys)

# What the tests have run with.  Anything else is tried in a forked child first.
TESTED_PYTHON = ((3, 11), (3, 12), (3, 13))
TESTED = {"uvloop": ("0.23.0",), "orjson": ("3.13.0",)}
TRIAL_SECONDS = 10


def load() -> tuple[Callable[[], AbstractEventLoop], bool]:
    """Import uvloop and orjson; return what makes a loop, and whether it is lean.

    To be called once, in the main thread, before any plugin is imported.  Plain
    imports are used when FORZA_RUNTIME=plain asks for them, when asyncio or uvloop is
    there already, and, with one line on stderr, when anything about the lean runtime
    comes as a surprise.
    """
    unwanted = os.environ.get("FORZA_RUNTIME") == "plain"
    if unwanted or "asyncio" in sys.modules or "uvloop" in sys.modules:
        return _load_plain(), False
    try:
        if not _is_tested():
            _try_in_child()
        return _load_lean(), True
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        sys.stderr.write(f"forza: plain imports, which take more memory: {reason}\n")
        return _load_plain(), False


def _load_plain() -> Callable[[], AbstractEventLoop]:
    import orjson  # noqa: F401
    import uvloop

    return uvloop.new_event_loop


def _load_lean() -> Callable[[], AbstractEventLoop]:
    """Import both among stand-ins; if that fails, leave no trace of the attempt."""
    _forget_aliases()
    before = set(sys.modules)
    placed: list[str] = []
    try:
        __import__("concurrent")  # the real one: an empty package
        asyncio, uvloop = _package("asyncio"), _package("uvloop")
        sys.modules.update(asyncio=asyncio, uvloop=uvloop)
        for name, names in _stand_ins().items():
            if name not in sys.modules:
                placed.append(name)
                _place(name, names)
        borrowed = _asyncio_names()
        vars(asyncio).update(borrowed)

        # orjson first: what fails after uvloop.loop is there could not be undone,
        # since an extension module in C is initialised once in a process.
        import orjson  # noqa: F401
        from uvloop.loop import Loop as UvloopLoop

        class Loop(UvloopLoop):
            """uvloop's loop, and asyncio's abstract one once asyncio is complete."""

        def is_complete(asyncio: Any) -> None:
            Loop.__bases__ = (UvloopLoop, asyncio.AbstractEventLoop)

        for name in borrowed:
            delattr(asyncio, name)
        for name in placed:
            _take_away(name)
        # A global that one class statement has used, and nothing else will.
        vars(uvloop.loop).pop("enum", None)
        for name in set(sys.modules) - before:
            _refuse_stand_ins(name)
        _leave_incomplete(asyncio, is_complete)
        _leave_incomplete(uvloop)
    except BaseException:
        for name in set(sys.modules) - before:
            _take_away(name)
        raise
    return Loop  # type: ignore[return-value]


class _StandIn(ModuleType):
    """Takes the place of a module while uvloop and orjson are imported."""


def _place(name: str, names: Names) -> None:
    module = sys.modules[name] = _StandIn(name)
    vars(module).update(names)
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, module)


def _take_away(name: str) -> None:
    sys.modules.pop(name, None)
    parent, _, child = name.rpartition(".")
    if parent in sys.modules:
        vars(sys.modules[parent]).pop(child, None)


def _refuse_stand_ins(name: str) -> None:
    """Fail if a real module, which stays, has kept hold of a stand-in."""
    for key, value in vars(sys.modules[name]).items():
        if isinstance(value, _StandIn):
            raise ImportError(f"{name}.{key} is a stand-in")


class _Package(ModuleType):
    """A package whose `__init__` runs on the first use of anything it lacks.

    `__path__` is among what it lacks, and the import system asks for that before it
    imports any submodule: nobody ever meets a part of the package without the rest.
    """

    def __getattr__(self, name: str) -> Any:
        spec, then = vars(self)["__spec__"], vars(self).pop("_then")
        self.__class__ = ModuleType  # type: ignore[assignment]
        self.__path__ = spec.submodule_search_locations
        spec.loader.exec_module(self)
        if then is not None:
            then(self)
        return getattr(self, name)


def _package(name: str) -> ModuleType:
    """Make a package without running its `__init__`."""
    from _frozen_importlib import module_from_spec

    for finder in sys.meta_path:
        spec = finder.find_spec(name, None)
        if spec is not None:
            return module_from_spec(spec)
    raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def _leave_incomplete(
    package: ModuleType, then: Callable[[ModuleType], None] | None = None
) -> None:
    del package.__path__
    vars(package)["_then"] = then
    package.__class__ = _Package


class _Later:
    """A name of a module that is imported when the name is first used."""

    __slots__ = ("_module", "_name")

    def __init__(self, module: str, name: str) -> None:
        self._module = module
        self._name = name

    def _real(self) -> Any:
        __import__(self._module)
        real = getattr(sys.modules[self._module], self._name)
        if real is self:
            raise AttributeError(f"{self._module}.{self._name} is a stand-in as yet")
        return real

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._real()(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real(), name)

    def __instancecheck__(self, instance: object) -> bool:
        # Nothing can be an instance of a class whose module nobody has imported.
        return self._module in sys.modules and isinstance(instance, self._real())


def _later(module: str, names: str) -> Names:
    return {name: _Later(module, name) for name in names.split()}


def _all_of(module: str) -> Names:
    """Return what a module written in C offers: its wrapper in Python is left out."""
    names = vars(__import__(module))
    return {name: value for name, value in names.items() if name[:2] != "__"}


class _WeakValues:
    """What uvloop uses of a WeakValueDictionary; keys are descriptors, so are few."""

    def __init__(self) -> None:
        self._refs: dict[int, Any] = {}

    def __setitem__(self, key: int, value: object) -> None:
        from _weakref import ref

        self._refs[key] = ref(value)

    def __getitem__(self, key: int) -> Any:
        value = self._refs[key]()
        if value is None:
            raise KeyError(key)
        return value


class _WeakSet:
    """What uvloop uses of a WeakSet: for asynchronous generators, of which few run."""

    def __init__(self) -> None:
        self._refs: set[Any] = set()

    def __len__(self) -> int:
        return len(self._refs)

    def __iter__(self) -> Iterator[object]:
        found = [ref() for ref in tuple(self._refs)]
        return iter([value for value in found if value is not None])

    def add(self, value: object) -> None:
        from _weakref import ref

        self._refs.add(ref(value, self._refs.discard))

    def discard(self, value: object) -> None:
        from _weakref import ref

        self._refs.discard(ref(value))

    def clear(self) -> None:
        self._refs.clear()


class _Aliases:
    """Other names of encodings, which are read again when somebody asks for one."""

    def get(self, name: str) -> str | None:
        import encodings
        from encodings import aliases

        encodings._aliases = aliases.aliases
        return aliases.aliases.get(name)


def _forget_aliases() -> None:
    """Free a table of 400 names that Python reads at its start: 50 kB. All that takes
    their place comes afterwards, so that this is the first thing to do."""
    import encodings

    encodings._aliases = _Aliases()
    _take_away("encodings.aliases")


class _NeverRaisedError(Exception):
    """For the `except` clauses of paths that nobody takes."""


def _no_tls(*args: object) -> NoReturn:
    raise NotImplementedError(
        "no TLS through the loop of the lean runtime: "
        "use an ssl.SSLSocket of your own, or set FORZA_RUNTIME=plain"
    )


def _stand_ins() -> dict[str, Names]:
    """Return, for each module to replace, all that its importers take from it.

    A name that is missing here fails the import, and so leads to plain imports.
    """
    from _thread import get_ident

    class MainThread:
        ident = get_ident()

    return {
        # ---- for uvloop ----
        # Arguments are checked against SSLContext; the rest is used by SSLProtocol
        # alone, which can't be made without a MemoryBIO.
        "ssl": {
            **_later("ssl", "SSLContext create_default_context"),
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
        # These are in _socket: constants, errors, the socket pair by which signals
        # wake the loop.  The class is what others get, and are asked about: the loop
        # marks their socket as in use, so that close() waits.  The enumerations only
        # adorn the results of getaddrinfo.
        "socket": {
            **_all_of("_socket"),
            "socket": _Later("socket", "socket"),
            "AddressFamily": int,
            "SocketKind": int,
        },
        # The functions are _signal's: signal.py adds enumerations to their results.
        "signal": _all_of("_signal"),
        # For the loop's own subprocesses; forza spawns by itself.
        "subprocess": {
            "PIPE": -1,
            "STDOUT": -2,
            "DEVNULL": -3,
            "SubprocessError": _NeverRaisedError,
        },
        # run_in_executor makes its pool on first use.
        "concurrent.futures": _later("concurrent.futures", "ThreadPoolExecutor Future"),
        # Which thread is the main one (this one), and one to shut the executor down.
        "threading": {
            "main_thread": lambda: MainThread,
            "Thread": _Later("threading", "Thread"),
        },
        # Coroutine functions are refused as callbacks; isgenerator is never called.
        "inspect": {
            "iscoroutinefunction": _is_coroutine_function,
            "isgenerator": lambda value: False,
        },
        # Where a handle was made, in debug mode.  Also for _asyncio: extract_stack.
        "traceback": _later(
            "traceback", "StackSummary walk_stack format_list extract_stack"
        ),
        # The same types, functions and abstract classes that the real modules take
        # from C (or from _collections_abc); Counter is for debug builds.
        "collections": {
            **_all_of("_collections"),
            "Counter": _Later("collections", "Counter"),
        },
        "collections.abc": _all_of("_collections_abc"),
        "functools": _all_of("_functools"),
        "warnings": _all_of("_warnings"),
        # Transports by descriptor, and running asynchronous generators.
        "weakref": {"WeakValueDictionary": _WeakValues, "WeakSet": _WeakSet},
        # The logger is silent unless something goes wrong.
        "asyncio.log": {"logger": _Later("asyncio.log", "logger")},
        # Kept in a variable that no code reads.
        "itertools": _later("itertools", "chain"),
        "asyncio.transports": _later("asyncio.transports", "_FlowControlMixin"),
        # Imported, and nothing taken from them.
        "asyncio.base_events": {},
        "asyncio.futures": {},
        "asyncio.sslproto": {},
        # ---- for _asyncio, which is asyncio's Future and Task ----
        # Asked for the loop when none is running.
        "asyncio.events": _later("asyncio.events", "get_event_loop_policy"),
        # For repr() and for printed stacks.
        "asyncio.base_futures": _later("asyncio.base_futures", "_future_repr"),
        "asyncio.base_tasks": _later(
            "asyncio.base_tasks", "_task_repr _task_get_stack _task_print_stack"
        ),
        # To check what a Task is given.  uvloop looks here for debug_wrapper, which
        # no Python of ours has.
        "asyncio.coroutines": {"iscoroutine": _is_coroutine},
        # ---- for orjson ----
        # Types are compared with these.  A value of one of them goes to `default`
        # now, like any that orjson does not know; see docs/lean-runtime.md.
        "uuid": _later("uuid", "UUID NAMESPACE_DNS"),
        "dataclasses": _later("dataclasses", "_FIELD"),
        "zoneinfo": _later("zoneinfo", "ZoneInfo"),  # before orjson 3.11
        # Also for uvloop: it has one enumeration, for watching files.
        "enum": {"EnumMeta": _Later("enum", "EnumMeta"), "IntEnum": int},
        # The base class of orjson.JSONDecodeError, itself a ValueError.
        "json": {"JSONDecodeError": ValueError},
        # Its types are written in C; before Python 3.12 datetime.py first builds
        # them all in Python, only to throw those away.
        "datetime": _all_of("_datetime"),
    }


def _asyncio_names() -> Names:
    """Return what uvloop takes from asyncio itself: nearly all is the real thing."""
    import _asyncio
    from asyncio import exceptions, protocols

    return {
        "CancelledError": exceptions.CancelledError,
        "InvalidStateError": exceptions.InvalidStateError,
        "TimeoutError": exceptions.TimeoutError,
        "BaseProtocol": protocols.BaseProtocol,
        "Protocol": protocols.Protocol,
        "Future": _asyncio.Future,
        "Task": _asyncio.Task,
        "get_event_loop": _asyncio.get_event_loop,
        "_get_running_loop": _asyncio._get_running_loop,
        "_set_running_loop": _asyncio._set_running_loop,
        "iscoroutine": _is_coroutine,
        "iscoroutinefunction": _is_coroutine_function,  # before uvloop 0.23
        "isfuture": _is_future,
        "ensure_future": _ensure_future,
        # create_server, create_connection by name, run_in_executor.
        **_later("asyncio", "gather wait wrap_future"),
        **_later("asyncio", "Transport"),  # which no code uses
        # Handlers of SIGCHLD that belong to one are refused.
        "AbstractChildWatcher": (),
    }


# These four stay in use for good: they answer as asyncio's and inspect's own do.


def _is_coroutine(value: object) -> bool:
    from _collections_abc import Coroutine

    if sys.version_info < (3, 12) and type(value) is type(_ for _ in ()):
        return True
    return isinstance(value, Coroutine)


def _is_coroutine_function(value: object) -> bool:
    is_coroutine = 0x80  # inspect.CO_COROUTINE
    flags = getattr(getattr(value, "__code__", None), "co_flags", 0)
    return bool(flags & is_coroutine)


def _is_future(value: Any) -> bool:
    return (
        hasattr(value.__class__, "_asyncio_future_blocking")
        and value._asyncio_future_blocking is not None
    )


def _ensure_future(value: Any, *, loop: AbstractEventLoop | None = None) -> Any:
    if loop is not None:
        if _is_coroutine(value):
            return loop.create_task(value)
        if _is_future(value) and value.get_loop() is loop:
            return value
    return _Later("asyncio", "ensure_future")(value, loop=loop)


def _is_tested() -> bool:
    """Whether the tests have run with just these versions (a few calls of stat)."""
    if sys.version_info[:2] not in TESTED_PYTHON:
        return False
    for name, versions in TESTED.items():
        home = os.path.dirname(os.path.dirname(_package(name).__file__ or ""))
        if not any(os.path.exists(f"{home}/{name}-{v}.dist-info") for v in versions):
            return False
    return True


def _try_in_child() -> None:
    """Load and use it all in a forked child first, where even a crash is harmless.

    Not an idle worry: orjson 3.10 takes a missing name with a segmentation fault.
    """
    _signal = __import__("_signal")
    readable, writable = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            _signal.alarm(TRIAL_SECONDS)
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
    with open(readable, "rb") as pipe:
        said = pipe.read().decode()
    _, status = os.waitpid(pid, 0)
    if said != "ok":
        raise ImportError(said or f"the trial ended with status {status}")


def _check(new_loop: Callable[[], AbstractEventLoop]) -> None:
    """Use everything once that forza uses; raise if anything is not as it should be."""
    import orjson

    signal = __import__("_signal").SIGUSR1
    loop = new_loop()
    readable, writable = os.pipe()
    seen: list[str] = []

    async def use() -> None:
        done = loop.create_future()
        loop.add_reader(readable, seen.append, "readable")
        loop.add_writer(writable, loop.remove_writer, writable)
        loop.add_signal_handler(signal, seen.append, "signal")
        loop.call_later(0.001, done.set_result, None)
        os.write(writable, b"x")
        os.kill(os.getpid(), signal)
        await done
        loop.remove_reader(readable)
        loop.remove_signal_handler(signal)
        if not await loop.getaddrinfo(b"127.0.0.1", 1):
            raise ImportError("getaddrinfo finds nothing")

    loop.run_until_complete(loop.create_task(use()))
    loop.close()
    if not {"readable", "signal"} <= set(seen):
        raise ImportError(f"the loop has seen {seen} only")
    value = {"a": [1, 2.5, None, True, "\u20ac"]}
    if orjson.loads(orjson.dumps(value, str)) != value:
        raise ImportError("orjson does not give back what it was given")


def forget_loader() -> None:
    """Free what only `load` needs: the modules that are imported next take its place.

    What has to answer for good stays: the packages and the later names.
    """
    for function in (
        *(load, _load_plain, _load_lean, _is_tested, _try_in_child, _check),
        *(_package, _leave_incomplete, _place, _take_away, _refuse_stand_ins),
        *(_stand_ins, _asyncio_names, _later, _all_of, _forget_aliases),
    ):
        del globals()[function.__name__]
