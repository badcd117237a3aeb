# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Run the lean runtime as forza runs it: in fresh, isolated interpreters."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from forza import _lean, _settle

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent.parent

PRELUDE = """\
import sys
sys.path[1:] = {path!r}
from forza import _lean, _settle
"""
LOAD = """\
new_loop, lean = _lean.load()
assert lean
loop = new_loop()
"""


def command(program: str, *first_on_path: str) -> list[str]:
    path = [*first_on_path, str(ROOT), *sys.path]
    text = PRELUDE.format(path=path) + textwrap.dedent(program)
    return [sys.executable, "-I", "-S", "-c", text]


def environ(**more: str) -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k != "FORZA_RUNTIME"} | more


def run(program: str, *first_on_path: str, **env: str) -> tuple[str, str]:
    """Run a program to its end; return what it has said on stdout and stderr."""
    ended = subprocess.run(
        command(program, *first_on_path),
        env=environ(**env),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, f"status {ended.returncode}: {ended.stderr}"
    return ended.stdout, ended.stderr


def run_lean(program: str) -> str:
    """Run a program that has loaded the lean runtime and must not complain."""
    out, err = run(LOAD + textwrap.dedent(program))
    assert err == ""
    return out


# ---- What the loop can do without asyncio


def test_the_loop_does_what_the_core_asks_of_it() -> None:
    """Timers, tasks, futures, readers, writers, names: and nothing is imported."""
    run_lean(
        """
        import os, _socket
        listener = _socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        before = set(sys.modules)

        def ready(add, remove, fd):
            future = loop.create_future()
            add(fd, future.set_result, None)
            future.add_done_callback(lambda _: remove(fd))
            return future

        async def connect():
            found = await loop.getaddrinfo(b"localhost", 80, family=2, type=1)
            assert found[0][:2] == (2, 1) and found[0][4] == ("127.0.0.1", 80)
            sock = _socket.socket()
            sock.setblocking(False)
            try:
                sock.connect(listener.getsockname())
            except BlockingIOError:
                await ready(loop.add_writer, loop.remove_writer, sock.fileno())
            sock.send(b"hello")
            return sock

        async def serve():
            await ready(loop.add_reader, loop.remove_reader, listener.fileno())
            fd, _ = listener._accept()
            await ready(loop.add_reader, loop.remove_reader, fd)
            return os.read(fd, 100)

        async def main():
            server = loop.create_task(serve())
            client = loop.create_task(connect())
            sock = await client
            assert await server == b"hello"
            later = loop.create_future()
            loop.call_at(loop.time() + 0.001, later.set_result, 1)
            assert await later == 1
            task = loop.create_task(serve())
            loop.call_soon(task.cancel)
            try:
                await task
            except BaseException as error:
                return type(error).__name__

        assert loop.run_until_complete(main()) == "CancelledError"
        loop.close()
        assert set(sys.modules) == before, set(sys.modules) - before
        """
    )


SIGNALLED = """
    import _signal, os
    seen = []

    def handle(signum):
        seen.append(signum)
        os.write(1, b"%d\\n" % signum)

    for signum in (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP, _signal.SIGWINCH):
        loop.add_signal_handler(signum, handle, signum)
    loop.add_signal_handler(_signal.SIGUSR2, handle, _signal.SIGUSR2)

    def remove():
        assert loop.remove_signal_handler(_signal.SIGTERM)
        assert not loop.remove_signal_handler(_signal.SIGTERM)
        os.write(1, b"removed\\n")

    loop.add_signal_handler(_signal.SIGUSR1, remove)
    loop.call_soon(os.write, 1, b"ready\\n")
    loop.run_forever()
"""


@pytest.fixture
def signalled() -> Iterator[subprocess.Popen[bytes]]:
    """A lean process that waits for signals, with no timer to wake it."""
    process = subprocess.Popen(
        command(LOAD + textwrap.dedent(SIGNALLED)),
        env=environ(),
        stdout=subprocess.PIPE,
        bufsize=0,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGWINCH", "SIGUSR2"])
def test_a_real_signal_wakes_the_idle_loop(
    signalled: subprocess.Popen[bytes], name: str
) -> None:
    """A handler of add_signal_handler runs for each signal that arrives."""
    assert signalled.stdout is not None
    for _ in range(3):
        signalled.send_signal(signal.Signals[name])
        assert int(signalled.stdout.readline()) == signal.Signals[name]


def test_a_removed_signal_handler_restores_the_default(
    signalled: subprocess.Popen[bytes],
) -> None:
    """After remove_signal_handler, SIGTERM ends the process as it always does."""
    assert signalled.stdout is not None
    signalled.send_signal(signal.SIGUSR1)
    assert signalled.stdout.readline() == b"removed\n"
    signalled.send_signal(signal.SIGTERM)
    assert signalled.wait() == -signal.SIGTERM


# ---- What the others get


def test_every_stand_in_is_gone() -> None:
    """No stand-in is in sys.modules, nor held by a module that is."""
    run_lean(
        """
        for name, module in sys.modules.items():
            assert not isinstance(module, _lean._StandIn), name
            for key, value in list(vars(module).items()):
                assert not isinstance(value, _lean._StandIn), (name, key)
        """
    )


@pytest.mark.parametrize("name", sorted(_lean._stand_ins()))
def test_a_later_import_gets_the_real_module(name: str) -> None:
    """Whoever imports what had a stand-in gets all that the real module has."""
    look = f"""
        import {name}
        module = sys.modules[{name!r}]
        assert module.__spec__ is not None
        print(*sorted(vars(module)))
        """
    real, said = run(look)
    assert said == ""
    assert run_lean(look) == real


@pytest.mark.parametrize(
    "use",
    [
        "assert 'é'.encode('latin1') == b'\\xe9'",
        "assert codecs.lookup('U8').name == 'utf-8'",
        "assert codecs.lookup('csISOLatin1').name == 'iso8859-1'",
        "assert b'YQ=='.decode('ascii') and codecs.decode(b'6869', 'hex') == b'hi'",
        "import encodings.idna; assert 'é.example'.encode('idna')[:4] == b'xn--'",
        "import locale; assert locale.normalize('en_US.utf8') == 'en_US.UTF-8'",
        "assert encodings.search_function('no_such_encoding') is None",
    ],
)
def test_encodings_have_all_their_names(use: str) -> None:
    """The table of other names is read again on the first use of any, and is whole."""
    run_lean(
        f"""
        import codecs, encodings
        assert "encodings.aliases" not in sys.modules
        {use}
        from encodings import aliases
        codecs.lookup("cp037")  # is known by its own name, and asked for among them
        codecs.lookup("866")
        assert encodings._aliases is aliases.aliases is encodings.aliases.aliases
        assert aliases.aliases["l1"] == "latin_1"
        """
    )


@pytest.mark.parametrize(
    "statement",
    [
        "import asyncio; asyncio.sleep",
        "from asyncio import sleep",
        "from asyncio import *",
        "import asyncio.futures",
        "import asyncio.events; asyncio.events.AbstractEventLoop",
        "from asyncio.tasks import gather",
        "from asyncio import base_events",
        "import asyncio.exceptions; asyncio.exceptions; asyncio.run",
        "import asyncio.unix_events",
        "import uvloop; uvloop.new_event_loop",
        "from uvloop import run",
        "import asyncio.sslproto, asyncio.log, asyncio.coroutines",
    ],
)
def test_asyncio_completes_itself_whichever_way_it_is_imported(statement: str) -> None:
    """However it is first used, asyncio is whole, and its classes are the same."""
    run_lean(
        f"""
        import _asyncio
        CancelledError = sys.modules["asyncio.exceptions"].CancelledError
        Protocol = sys.modules["asyncio.protocols"].Protocol
        assert "asyncio.tasks" not in sys.modules
        {statement}
        import asyncio, uvloop
        assert asyncio.CancelledError is CancelledError
        assert asyncio.Protocol is Protocol
        assert asyncio.Future is _asyncio.Future is type(loop.create_future())
        assert asyncio.Task is _asyncio.Task
        assert set(asyncio.__all__) <= set(dir(asyncio))
        assert type(asyncio) is type(sys)
        for name in "events", "tasks", "log", "coroutines", "sslproto":
            assert getattr(asyncio, name) is sys.modules["asyncio." + name], name
        assert issubclass(new_loop, uvloop.loop.Loop)
        assert isinstance(loop, asyncio.AbstractEventLoop)
        assert not hasattr(asyncio, "nonsense")
        """
    )


def test_the_whole_of_asyncio_works_on_the_lean_loop() -> None:
    """A plugin may use all that asyncio offers on the loop it is given."""
    out = run_lean(
        """
        async def early():
            future = loop.create_future()
            loop.call_later(0.001, future.set_result, 5)
            return await future

        assert loop.run_until_complete(early()) == 5

        import asyncio, gc, logging, os, signal, socket, subprocess, threading
        from asyncio.exceptions import CancelledError

        async def cancellation():
            task = asyncio.create_task(asyncio.sleep(9))
            await asyncio.sleep(0)
            task.cancel("enough")
            try:
                await task
            except asyncio.CancelledError as error:
                assert type(error) is CancelledError and error.args == ("enough",)
            assert task.cancelled()
            try:
                await asyncio.wait_for(loop.create_future(), 0.001)
                raise AssertionError
            except asyncio.TimeoutError as error:
                assert isinstance(error, TimeoutError)
            try:
                async with asyncio.timeout(0.001):
                    await asyncio.sleep(9)
                raise AssertionError
            except TimeoutError:
                pass
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(asyncio.sleep(9))
                    group.create_task(asyncio.wait_for(loop.create_future(), 0.001))
                raise AssertionError
            except* TimeoutError:
                pass

        async def tools():
            assert asyncio.get_running_loop() is loop
            sleeps = [asyncio.sleep(0, n) for n in (1, 2)]
            assert await asyncio.gather(*sleeps) == [1, 2]
            done, pending = await asyncio.wait([asyncio.ensure_future(early())])
            assert done.pop().result() == 5 and not pending
            await asyncio.shield(loop.create_task(early()))
            event, queue = asyncio.Event(), asyncio.Queue()
            loop.call_later(0.001, event.set)
            await event.wait()
            await queue.put(1)
            assert await queue.get() == 1
            async with asyncio.Lock(), asyncio.Semaphore(2):
                pass
            assert asyncio.current_task() in asyncio.all_tasks()
            assert "early" in repr(loop.create_task(early()))
            assert "pending" in repr(loop.create_future())
            assert asyncio.iscoroutinefunction(tools)
            asyncio.current_task().print_stack(file=open(os.devnull, "w"))

        async def threads():
            assert await asyncio.to_thread(threading.get_ident) != threading.get_ident()
            assert threading.current_thread() is threading.main_thread()
            work = asyncio.sleep(0.001, 7)
            future = await asyncio.to_thread(
                lambda: asyncio.run_coroutine_threadsafe(work, loop)
            )
            assert await asyncio.wrap_future(future) == 7
            assert await asyncio.to_thread(asyncio.run, asyncio.sleep(0, 8)) == 8

        async def streams():
            async def echo(reader, writer):
                writer.write(await reader.readline())
                await writer.drain()
                writer.close()

            server = await asyncio.start_server(echo, "127.0.0.1", 0)
            sock = server.sockets[0]
            assert sock.family is socket.AF_INET or sock.family == socket.AF_INET
            port = sock.getsockname()[1]
            reader, writer = await asyncio.open_connection("localhost", port, family=2)
            writer.write(b"hi\\n")
            assert await reader.readline() == b"hi\\n"
            writer.close()
            await writer.wait_closed()
            server.close()
            await server.wait_closed()
            try:
                await asyncio.open_connection("127.0.0.1", port)
                raise AssertionError
            except ConnectionRefusedError:
                pass
            a, b = socket.socketpair()
            for sock in (a, b):
                sock.setblocking(False)
            await loop.sock_sendall(a, b"zz")
            assert await loop.sock_recv(b, 9) == b"zz"
            a.close()
            b.close()

        async def transports_by_descriptor():
            a, b = socket.socketpair()
            fd = a.fileno()
            transport, _ = await loop.create_connection(asyncio.Protocol, sock=a)
            try:
                loop.add_reader(fd, print)
                raise AssertionError
            except RuntimeError as error:
                assert "is used by transport" in str(error)
            transport.abort()
            del transport
            await asyncio.sleep(0.001)
            gc.collect()
            os.dup2(b.fileno(), fd)  # the number again, for something else
            loop.add_reader(fd, print)
            loop.remove_reader(fd)
            os.close(fd)
            b.close()

        async def generators():
            ended = []

            async def numbers():
                try:
                    yield 1
                    yield 2
                finally:
                    ended.append(True)

            async for _ in (kept := numbers()):
                break
            await loop.shutdown_asyncgens()
            assert ended == [True]

        async def a_socket_in_use_outlives_its_close():
            # The loop counts its use of the real class, so that close() waits.
            a, b = socket.socketpair()
            loop.add_reader(a, lambda: None)
            fd = a.fileno()
            a.close()
            os.fstat(fd)
            loop.remove_reader(fd)
            try:
                os.fstat(fd)
                raise AssertionError
            except OSError:
                b.close()

        async def processes():
            child = await asyncio.create_subprocess_exec(
                "echo", "x", stdout=subprocess.PIPE
            )
            assert (await child.communicate())[0] == b"x\\n"
            child = await asyncio.create_subprocess_shell("exit 3")
            assert await child.wait() == 3
            try:
                await asyncio.create_subprocess_exec("/nonexistent")
                raise AssertionError
            except FileNotFoundError:
                pass

        async def signals():
            got = asyncio.Event()
            loop.add_signal_handler(signal.SIGUSR1, got.set)
            signal.raise_signal(signal.SIGUSR1)
            await got.wait()
            assert loop.remove_signal_handler(signal.SIGUSR1)
            try:
                loop.add_signal_handler(signal.SIGUSR1, signals)
                raise AssertionError
            except TypeError:
                pass

        async def errors():
            records = []

            class Handler(logging.Handler):
                def emit(self, record):
                    records.append(self.format(record))

            logging.getLogger("asyncio").addHandler(Handler())
            logging.getLogger("asyncio").propagate = False
            loop.call_soon(lambda: 1 / 0)
            await asyncio.sleep(0.001)
            assert "ZeroDivisionError" in records[0], records

        async def main():
            assert isinstance(loop, asyncio.AbstractEventLoop)
            for part in (cancellation, tools, threads, streams, processes, signals,
                         a_socket_in_use_outlives_its_close, errors,
                         transports_by_descriptor, generators):
                await part()
                print(part.__name__)
            await loop.shutdown_default_executor()

        asyncio.set_event_loop(loop)
        loop.run_until_complete(main())
        loop.close()
        import uvloop
        assert uvloop.run(asyncio.sleep(0, 3)) == 3
        assert asyncio.run(asyncio.sleep(0, 4)) == 4
        """
    )
    assert len(out.split()) == 10


def test_debug_mode_works() -> None:
    """The loop's debug mode is where inspect and traceback are used in earnest."""
    run_lean(
        """
        import asyncio, logging
        logging.getLogger("asyncio").setLevel(logging.ERROR)
        loop.set_debug(True)

        async def main():
            handle = loop.call_later(5, print)
            assert "created at" in repr(handle), repr(handle)
            handle.cancel()
            await asyncio.sleep(0)

        loop.run_until_complete(main())
        """
    )


def test_real_tls_works_but_not_through_the_loop() -> None:
    """ssl is the real one; the loop says what to do instead of failing oddly."""
    run_lean(
        """
        import asyncio, socket, ssl

        def context(protocol):
            made = ssl.SSLContext(protocol)
            made.check_hostname = False
            made.verify_mode = ssl.CERT_NONE
            made.maximum_version = ssl.TLSVersion.TLSv1_2
            made.set_ciphers("aNULL:@SECLEVEL=0")  # needs no certificate
            return made

        a, b = socket.socketpair()
        a.setblocking(False)
        b.setblocking(False)
        ends = [
            context(ssl.PROTOCOL_TLS_SERVER).wrap_socket(
                a, server_side=True, do_handshake_on_connect=False
            ),
            context(ssl.PROTOCOL_TLS_CLIENT).wrap_socket(
                b, do_handshake_on_connect=False
            ),
        ]

        async def handshake(end):
            while True:
                future = loop.create_future()
                try:
                    return end.do_handshake()
                except ssl.SSLWantReadError:
                    loop.add_reader(end, future.set_result, None)
                    await future
                    loop.remove_reader(end)

        async def main():
            await asyncio.gather(*map(handshake, ends))
            ends[0].send(b"secret")
            await asyncio.sleep(0)
            assert ends[1].recv(99) == b"secret" and ends[1].version() == "TLSv1.2"
            server = await asyncio.start_server(print, "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            try:
                await asyncio.open_connection(
                    "127.0.0.1", port, ssl=ssl.create_default_context()
                )
                raise AssertionError
            except NotImplementedError as error:
                assert "FORZA_RUNTIME=plain" in str(error)
            server.close()

        loop.run_until_complete(main())
        """
    )


# ---- JSON


def test_json_imports_nothing_for_plain_values_and_errors() -> None:
    """Neither plain values nor any error of orjson's imports a module."""
    run_lean(
        """
        import orjson
        before = set(sys.modules)
        value = {"a": [1, 2.5, None, True, "\\u20ac", {"b": []}], "c": -7}
        assert orjson.loads(orjson.dumps(value)) == value
        for odd in (object(), b"x", {1}, print, 1j, 1 << 70, "\\ud800", {1: 2}):
            try:
                orjson.dumps(odd)
                raise AssertionError(odd)
            except TypeError:
                pass
            assert orjson.dumps([object()], lambda o: "odd") == b'["odd"]'
        for text in (b"{", b"\\xff", b'"\\\\ud800"', b""):
            try:
                orjson.loads(text)
                raise AssertionError(text)
            except orjson.JSONDecodeError as error:
                assert isinstance(error, ValueError) and error.args
        assert set(sys.modules) == before, set(sys.modules) - before
        """
    )


def test_odd_values_are_encoded_or_left_to_default() -> None:
    """What orjson can't tell apart in the lean runtime goes to `default`, whole."""
    run_lean(
        """
        import orjson
        import dataclasses, datetime, enum, uuid, zoneinfo

        @dataclasses.dataclass
        class Point:
            x: int = 1

        class Slotted:
            __slots__ = ()

        class Colour(enum.Enum):
            RED = "red"

        class Level(enum.IntEnum):
            LOW = 1

        def dumps(value):
            given = []
            option = orjson.OPT_PASSTHROUGH_DATACLASS
            encoded = orjson.dumps(value, lambda o: given.append(o) or "given", option)
            return encoded if not given else given[0]

        for odd in (Point(), Slotted(), Colour.RED, uuid.UUID(int=1)):
            assert dumps(odd) is odd, odd
        assert dumps(Level.LOW) == b"1"
        assert dumps(datetime.date(2020, 1, 2)) == b'"2020-01-02"'
        noon = datetime.datetime(2020, 1, 2, 12, tzinfo=datetime.timezone.utc)
        assert dumps(noon) == b'"2020-01-02T12:00:00+00:00"'
        """
    )


# ---- Plain imports instead


def chosen(program: str, *first_on_path: str, **env: str) -> tuple[bool, str]:
    """Return whether a working runtime was lean, and what was said on stderr."""
    out, err = run(
        textwrap.dedent(program)
        + """
new_loop, lean = _lean.load()
import asyncio, os, ssl, orjson, uvloop
assert orjson.dumps([1]) == b"[1]"
loop = new_loop()
assert loop.run_until_complete(asyncio.sleep(0, 3)) == 3
if not lean:
    assert isinstance(loop, uvloop.Loop)
for name, module in sys.modules.items():
    assert not isinstance(module, _lean._StandIn), name
try:
    os.waitpid(-1, os.WNOHANG)
    raise AssertionError("a child was left behind")
except ChildProcessError:
    pass
print(lean)
""",
        *first_on_path,
        **env,
    )
    assert out in ("True\n", "False\n")
    return out == "True\n", err


def test_plain_is_chosen_by_the_environment() -> None:
    """FORZA_RUNTIME=plain is obeyed without a word."""
    assert chosen("", FORZA_RUNTIME="plain") == (False, "")


@pytest.mark.parametrize("name", ["asyncio", "uvloop", "asyncio.events"])
def test_plain_is_used_where_it_is_loaded_already(name: str) -> None:
    """What is there already costs nothing more, so it is used without a word."""
    assert chosen(f"import {name}") == (False, "")


@pytest.mark.parametrize("name", ["ssl", "logging", "typing", "dataclasses", "socket"])
def test_real_modules_that_are_there_already_are_used(name: str) -> None:
    """Another part of the standard library in memory does not prevent lean."""
    assert chosen(f"import {name}") == (True, "")


def said_one_line(said: str, *words: str) -> bool:
    assert said.startswith("forza: plain imports")
    assert said.count("\n") == 1
    return all(word in said for word in words)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("socket", "socket"),
        ("ssl", "SSL_ERROR_SYSCALL"),
        ("asyncio.log", "logger"),
        ("enum", "IntEnum"),
        ("asyncio.coroutines", "iscoroutine"),
    ],
)
@pytest.mark.parametrize("tested", [True, False])
def test_a_missing_name_leads_to_plain_imports(
    module: str, name: str, tested: bool
) -> None:
    """A stand-in that lacks a name fails the import; then plain imports work."""
    lean, said = chosen(
        f"""
        complete = _lean._stand_ins
        def stand_ins():
            incomplete = complete()
            del incomplete[{module!r}][{name!r}]
            return incomplete
        _lean._stand_ins = stand_ins
        if not {tested}:
            _lean.TESTED = {{"uvloop": ()}}
        """
    )
    assert not lean
    assert said_one_line(said, name)


def test_plain_uvloop_after_a_failure_has_all_it_has_elsewhere() -> None:
    """A half-imported uvloop is imported anew, and its TLS is the real one."""
    out, err = run(
        """
        complete = _lean._asyncio_names
        def names():
            found = complete()
            del found["Transport"]
            return found
        _lean._asyncio_names = names
        new_loop, lean = _lean.load()
        assert not lean
        import asyncio, ssl

        async def main():
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            server = await asyncio.start_server(print, "127.0.0.1", 0, ssl=context)
            server.close()
            await loop.run_in_executor(None, int)
            return "served"

        loop = new_loop()
        print(loop.run_until_complete(main()))
        """
    )
    assert out == "served\n"
    assert said_one_line(err, "Transport")


def test_a_version_nobody_knows_is_tried_first() -> None:
    """Trying leaves neither a word nor a child nor a descriptor behind."""
    before = (
        "import os; fds = os.listdir('/proc/self/fd'); _lean.TESTED = {'orjson': ()}"
    )
    assert chosen(before) == (True, "")
    run(
        f"{before}\nassert _lean.load()[1]\n"
        "assert os.listdir('/proc/self/fd') == fds, os.listdir('/proc/self/fd')"
    )


def test_a_uvloop_of_the_future_that_needs_more_is_imported_plainly(
    tmp_path: Path,
) -> None:
    """An unknown uvloop that takes a name we have not foreseen works, plainly."""
    package = tmp_path / "uvloop"
    package.mkdir()
    (package / "__init__.py").write_text("from .loop import new_event_loop\n")
    (package / "loop.py").write_text(
        "import asyncio, ssl\n"
        "ssl.OP_NO_TLSv1\n"
        "class Loop: pass\n"
        "new_event_loop = asyncio.new_event_loop\n"
    )
    out, err = run(
        """
        new_loop, lean = _lean.load()
        import asyncio
        loop = new_loop()
        print(lean, loop.run_until_complete(asyncio.sleep(0, "slept")))
        loop.close()
        """,
        str(tmp_path),
    )
    assert out == "False slept\n"
    assert said_one_line(err, "OP_NO_TLSv1")


@pytest.mark.parametrize(
    ("surprise", "word"),
    [
        ("os.kill(os.getpid(), 11)", "status 11"),
        ("os.abort()", "status 6"),
        ("raise RuntimeError('a surprise')", "a surprise"),
        ("os._exit(0)", "status 0"),
        ("__import__('time').sleep(60)", "status 14"),
    ],
)
def test_an_orjson_of_the_future_that_crashes_does_so_in_a_child(
    tmp_path: Path, surprise: str, word: str
) -> None:
    """However badly an unknown orjson takes the stand-ins, the process goes on."""
    package = tmp_path / "orjson"
    package.mkdir()
    (package / "__init__.py").write_text(
        "import json, os\n"
        f"if not hasattr(json, 'loads'): {surprise}\n"
        "def dumps(value): return json.dumps(value).encode()\n"
    )
    lean, said = chosen("_lean.TRIAL_SECONDS = 1", str(tmp_path))
    assert not lean
    assert said_one_line(said, word)


def test_a_loop_that_does_not_do_its_work_is_found_out() -> None:
    """What can be imported, but doesn't work, is used plainly."""
    lean, said = chosen(
        """
        _lean.TESTED = {"uvloop": ()}
        complete = _lean._stand_ins
        def stand_ins():
            useless = complete()
            useless["signal"].update(
                set_wakeup_fd=lambda fd, **k: -1,
                signal=lambda signum, handler: None,
                siginterrupt=lambda *args: None,
            )
            return useless
        _lean._stand_ins = stand_ins
        """
    )
    assert not lean
    assert said_one_line(said)


def test_a_module_that_keeps_a_stand_in_is_refused(tmp_path: Path) -> None:
    """A real module imported meanwhile would have to live with the stand-in."""
    package = tmp_path / "orjson"
    package.mkdir()
    (package / "__init__.py").write_text(
        "import json\ndef dumps(value): return b'[1]'\n"
    )
    lean, said = chosen("_lean._is_tested = lambda: True", str(tmp_path))
    assert not lean
    assert said_one_line(said, "orjson.json is a stand-in")


# ---- Settling


MEMORY = """
def memory():
    found = {}
    for line in open("/proc/self/smaps_rollup"):
        name, *rest = line.split()
        if rest[-1] == "kB":
            found[name[:-1]] = int(rest[0])
    return found["Rss"], found["Anonymous"]
"""


def test_settling_gives_back_memory_and_breaks_nothing() -> None:
    """Megabytes less are resident, and everything works on, again and again."""
    out = run_lean(
        MEMORY
        + """
import os
async def work():
    future = loop.create_future()
    loop.call_later(0.001, future.set_result, None)
    await future
    return await loop.getaddrinfo(b"localhost", 80)
loop.run_until_complete(work())
before = memory()
_settle.settle(loop)
after = memory()
print(before[0] - after[0], before[1] - after[1])
for _ in range(3):
    assert loop.run_until_complete(work())
    _settle.settle(loop)
import asyncio, ssl, logging
async def echo():
    server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    reader, writer = await asyncio.open_connection(*address)
    _settle.settle(loop)
    assert await reader.read() == b""
    writer.close()
    server.close()
    await asyncio.to_thread(int)
    _settle.settle(loop)
    assert await asyncio.to_thread(int) == 0
loop.run_until_complete(echo())
"""
    )
    resident, anonymous = map(int, out.split())
    assert resident > 2000
    assert anonymous > 50


def test_settling_after_a_burst_gives_the_burst_back() -> None:
    """What a burst of small and large blocks has taken does not stay."""
    out = run_lean(
        MEMORY
        + """
loop.call_soon(loop.stop)
loop.run_forever()
_settle.settle(loop)
before = memory()
burst = [bytes(n % 2000 + 600) for n in range(20_000)]
during = memory()
kept = burst[::4000]
del burst
_settle.settle(loop)
after = memory()
print(during[1] - before[1], after[1] - before[1])
"""
    )
    burst, left = map(int, out.split())
    assert burst > 20_000
    assert left < 2000


def test_the_buffer_of_the_loop_is_given_back_only_while_it_is_empty() -> None:
    """Data in the loop's own pages survives; pages of zeros are taken."""
    run_lean(
        MEMORY
        + """
fill = _settle.libc("memset")
length = 50 * _settle.PAGE
middle = id(loop) + (type(loop).__basicsize__ - length) // 2
_settle._drop_zeros(loop)
fill(middle, 7, length)
full = memory()[1]
_settle._drop_zeros(loop)
with open("/proc/self/mem", "rb", 0) as mem:
    mem.seek(middle)
    assert mem.read(length) == b"\7" * length
fill(middle, 0, length)
_settle._drop_zeros(loop)
assert memory()[1] < full - length // 1024 // 2
loop.call_soon(loop.stop)
loop.run_forever()
"""
    )


def test_what_only_looks_like_a_large_block_is_passed_over() -> None:
    """A page may begin with any number: looking goes on after it, and ends."""
    out = run_lean(
        """
import ctypes, mmap, signal
from forza import _settle
signal.alarm(10)  # it would take all memory before anybody lost patience
PAGE = _settle.PAGE
sizes = [2, 0, 1, PAGE, PAGE + 1, 1 << 40 | 2, 1 << 63 | 2, PAGE * 2 + 2, 7, 2]
area = mmap.mmap(-1, len(sizes) * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for page, size in enumerate(sizes):
    area[page * PAGE + 8 : page * PAGE + 16] = size.to_bytes(8, "little")
start = ctypes.addressof(ctypes.c_char.from_buffer(area))
with open("/proc/self/mem", "rb", 0) as memory:
    found = list(_settle._large_blocks(memory))
print(*((at - start, size) for at, size in found if 0 <= at - start < len(area)))
print(all(size > 0 for _, size in found))
_settle._drop_zeros(loop)
for page, size in enumerate(sizes):
    assert area[page * PAGE + 8 : page * PAGE + 16] == size.to_bytes(8, "little")
"""
    )
    page = os.sysconf("SC_PAGE_SIZE")
    assert out.splitlines() == [f"({7 * page}, {2 * page})", "True"]


def test_zeros_in_large_blocks_are_given_back_only_where_nobody_else_writes() -> None:
    """A table that is half empty costs half; with a second thread it is left alone."""
    run_lean(
        MEMORY
        + """
import _thread
lock = _thread.allocate_lock()
lock.acquire()
half = bytearray(4_000_000)
half[:] = b"7" * 2_000_000 + bytes(2_000_000)
whole = bytes(half)
assert half == whole
before = memory()[1]
_settle._drop_zeros(loop)
after = memory()[1]
assert before - after > 1500, (before, after)
assert half == whole
half[2_000_000:] = bytes(2_000_000)
before = memory()[1]
_thread.start_new_thread(lock.acquire, ())
_settle._drop_zeros(loop)
assert before - memory()[1] < 1000
lock.release()
"""
    )


def test_a_lean_process_is_small() -> None:
    """Loaded, run once and settled: the bounds leave room for other Pythons."""
    out = run_lean(
        MEMORY
        + """
import orjson
loop.call_later(0.001, loop.stop)
loop.run_forever()
orjson.dumps({"a": 1.5})
_settle.settle(loop)
loop.call_later(0.001, loop.stop)
loop.run_forever()
print(*memory())
"""
    )
    resident, anonymous = map(int, out.split())
    assert resident < 11_000
    assert anonymous < 5_000


@pytest.mark.parametrize("missing", ["libc", "open"])
def test_settling_does_without_what_a_platform_lacks(missing: str) -> None:
    """No glibc, no /proc: nothing is given back, and nothing is said."""
    run_lean(
        f"""
        def missing(*args):
            raise OSError("not here")
        _settle.{missing} = missing
        _settle.settle(loop)
        loop.call_soon(loop.stop)
        loop.run_forever()
        """
    )


SMAPS = """\
1000-3000 r-xp 00000000 08:01 42                   /usr/lib/clean.so
Anonymous:             {clean} kB
Swap:                  {swapped} kB
VmFlags: rd ex mr mw me
3000-4000 r--p 00002000 08:01 42                   /usr/lib/relocated.so
Anonymous:             4 kB
Swap:                  0 kB
4000-5000 rw-p 00003000 08:01 42                   /usr/lib/data.so
Anonymous:             0 kB
Swap:                  0 kB
5000-6000 r--s 00000000 08:01 43                   /var/cache/shared
Anonymous:             0 kB
Swap:                  0 kB
6000-7000 r-xp 00000000 00:00 0                    [vdso]
Anonymous:             0 kB
Swap:                  0 kB
7000-8000 r--p 00000000 00:00 0
Anonymous:             0 kB
Swap:                  0 kB
8000-9000 r--p 00000000 08:01 44                   /usr/lib/locale/with a space
Anonymous:             0 kB
Swap:                  0 kB
"""


@pytest.mark.parametrize(
    ("clean", "swapped", "taken"),
    [(0, 0, [0x1000, 0x8000]), (4, 0, [0x8000]), (0, 4, [0x8000])],
)
def test_only_pages_that_come_back_from_a_file_are_unmapped(
    monkeypatch: pytest.MonkeyPatch, clean: int, swapped: int, taken: list[int]
) -> None:
    """A page of our own, in memory or in swap, would be lost: its mapping stays."""
    smaps = SMAPS.format(clean=clean, swapped=swapped).encode()
    given: list[int] = []
    monkeypatch.setattr(_settle, "open", lambda *_: io.BytesIO(smaps), raising=False)
    monkeypatch.setattr(_settle, "libc", lambda _: lambda *args: given.append(args[0]))
    _settle._unmap_clean_file_pages()
    assert given == taken


def test_settling_takes_any_loop() -> None:
    """A loop that is not uvloop's has no buffer, and is left as it is."""
    run(
        """
        import asyncio
        loop = asyncio.new_event_loop()
        _settle.settle(loop)
        assert loop.run_until_complete(asyncio.sleep(0, 3)) == 3
        loop.close()
        """
    )


def test_huge_pages_are_refused_from_then_on() -> None:
    """Two arenas can't become one huge page, parts of which nobody needs."""
    run_lean(
        """
        get_thp_disable = 42
        assert _settle.libc("prctl")(get_thp_disable, 0, 0, 0, 0) == 0
        _settle.settle(loop)
        assert _settle.libc("prctl")(get_thp_disable, 0, 0, 0, 0) == 1
        """
    )


def test_without_the_loader_all_that_stays_works() -> None:
    """Once it is forgotten, asyncio completes itself and settling goes on."""
    run_lean(
        """
_lean.forget_loader()
assert not hasattr(_lean, "load") and not hasattr(_lean, "_stand_ins")
ours = new_loop()
import asyncio
assert isinstance(ours, asyncio.AbstractEventLoop)
assert ours.run_until_complete(asyncio.wait_for(asyncio.sleep(0, 5), 9)) == 5
_settle.settle(ours)
ours.close()
"""
    )
