# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Let a hostile app try; each attempt fails, and the app still runs."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import solenoid
from solenoid import _landlock
from solenoid._confine import confine
from tests.conftest import CHILDREN, PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

NOBODY = 65534
ROOT = os.geteuid() == 0
as_root = pytest.mark.skipif(not ROOT, reason="only root may do this")
landlocked = pytest.mark.skipif(
    _landlock.version() < _landlock.SCOPES_SINCE,
    reason="this kernel's Landlock has no scopes",
)
DENIED = {"EACCES", "EPERM", "EXDEV"}


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that other users may enter, unlike pytest's."""
    with tempfile.TemporaryDirectory(prefix="solenoid-test-") as made:
        Path(made).chmod(0o755)
        yield Path(made)


def own_release(place: Path, name: str, user: solenoid.User) -> Path:
    """Make the release of an app, and give it to the user."""
    package = place / name / "package"
    package.mkdir(parents=True)
    (package / "secret").write_text("canary")
    shutil.copy(CHILDREN / "hostile.js", package)
    asyncio.run(solenoid.restrict_filesystem(place / name, user))
    return package


class Hostile:
    """The hostile app, and those whom it attacks."""

    def __init__(self, place: Path, uid: int, level: Any, stack: ExitStack) -> None:
        user = solenoid.User("somebody", uid, uid)
        self.package = own_release(place, "mine", user)
        self.other = own_release(place, "other", user)
        self.outside = place / "outside"
        self.outside.mkdir()
        self.outside.chmod(0o777)
        as_user: dict[str, Any] = {}
        if uid != os.geteuid():
            as_user = {"user": uid, "group": uid, "extra_groups": ()}
        self.victim = subprocess.Popen(["sleep", "600"], env={"K": "canary"}, **as_user)
        stack.callback(self.victim.wait)
        stack.callback(self.victim.kill)
        name = f"\0forza-hostile-{self.victim.pid}".encode()
        for padded in (name, name.ljust(108, b"\0")):  # node pads, or not
            abstract = stack.enter_context(socket.socket(socket.AF_UNIX))
            abstract.bind(padded)
            abstract.listen()
        setuid = ""
        if ROOT:
            setuid = str(self.package / "id")
            shutil.copy(shutil.which("id") or "", setuid)
            Path(setuid).chmod(0o4755)
        node = os.path.realpath(shutil.which("node") or "")
        policy = solenoid.Policy(
            level,
            read=(str(Path(node).parent),),
            write=(str(self.package), str(self.package.parent / ".tmp")),
            descriptors=256,
        )
        told = {
            "other": str(self.other),
            "outside": str(self.outside),
            "victim": self.victim.pid,
            "setuid": setuid,
            "monitor": os.getpid() if level != "off" else self.victim.pid,
        }
        words = [node, "hostile.js", json.dumps(told)]
        if as_user:  # who may not be able to read this interpreter's libraries
            as_user["preexec_fn"] = lambda: confine(policy)
        else:
            words = [*policy.words(), *words]
        environ = {"PATH": os.environ["PATH"]}
        environ["TMPDIR"] = str(self.package.parent / ".tmp")
        self.app = subprocess.Popen(
            words,
            cwd=self.package,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **as_user,
        )
        stack.callback(self.app.wait)
        stack.callback(self.app.kill)
        for pipe in (self.app.stdout, self.app.stderr):
            assert pipe is not None
            stack.enter_context(pipe)

    def report(self) -> tuple[dict[str, Any], int]:
        """Ask the app, by HTTP, how its attempts went, and who it is."""
        assert self.app.stdout is not None
        assert self.app.stderr is not None
        port = self.app.stdout.readline().strip()
        assert port, self.app.stderr.read()
        url = f"http://127.0.0.1:{port}/"
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            said = json.load(answer)
        return said["found"], said["uid"]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What is to be ended afterwards."""
    with ExitStack() as made:
        yield made


USERS = [
    pytest.param(NOBODY, marks=as_root, id="a user of its own"),
    pytest.param(os.geteuid(), id="root" if ROOT else "a plain user"),
]


@landlocked
@pytest.mark.parametrize("level", ["default", "strict"])
@pytest.mark.parametrize("uid", USERS)
def test_hostile(place: Path, stack: ExitStack, uid: int, level: str) -> None:
    """It has its own files, and nothing of anybody else's, the user's own included."""
    hostile = Hostile(place, uid, level, stack)
    found, who = hostile.report()
    assert who == uid
    assert found.pop("taken") < 256
    assert found.pop("descriptors") == "EMFILE"
    own = {name: found.pop(name) for name in list(found) if name.startswith("own")}
    assert own.pop("own mode") == "600"
    assert own.pop("own child") == "ok\n"
    assert set(own.values()) == {"done"}, own
    assert found.pop("cpus") is True
    assert found.pop("core files") == "0"
    assert found.pop("capabilities") == "0,0"
    gained = found.pop("setuid program")
    assert gained == (str(uid) if ROOT else "")
    if uid == 0:
        # It is root by name; nothing comes of it.
        assert found.pop("setuid") == 0
    abstract = found.pop("abstract socket")
    assert abstract == ("EPERM" if level == "strict" else "done")
    by_child = found.pop("read by child")
    assert "canary" not in by_child
    assert "Permission denied" in by_child
    assert found.keys() >= {"read other", "kill other", "kill monitor", "chown"}
    assert {name: how for name, how in found.items() if how not in DENIED} == {}
    assert hostile.victim.poll() is None
    assert (hostile.other / "secret").read_text() == "canary"
    assert list(hostile.outside.iterdir()) == []
    assert hostile.app.poll() is None


def test_off(place: Path, stack: ExitStack) -> None:
    """Without restriction the same app does all that: the attempts are real ones."""
    hostile = Hostile(place, os.geteuid(), "off", stack)
    found, _ = hostile.report()
    assert found["read other"] == "canary"
    assert found["write other"] == found["write outside"] == "done"
    assert found["kill other"] in ("done", True)
    hostile.victim.wait()
    for made in ("/tmp/forza-hostile", "/dev/shm/forza-hostile"):
        Path(made).unlink(missing_ok=True)


def run(policy: solenoid.Policy, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command that is confined."""
    return subprocess.run(
        [*policy.words(), *words], capture_output=True, text=True, check=False
    )


CONNECT = (
    "import socket, sys\n"
    "s = socket.socket()\n"
    "getattr(s, sys.argv[1])(('127.0.0.1', int(sys.argv[2])))\n"
)


@pytest.mark.skipif(
    _landlock.version() < _landlock.NETWORK_SINCE, reason="no TCP rules in this kernel"
)
def test_ports() -> None:
    """It listens and connects where it may, and nowhere else."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as free:
        port = server.getsockname()[1]
        free.bind(("127.0.0.1", 0))
        unused = free.getsockname()[1]
        free.close()
        python = ("/usr/bin/env", sys.executable, "-I", "-c", CONNECT)
        read = (sys.prefix, sys.base_prefix)

        def said(verb: str, to: int, **given: tuple[int, ...]) -> str:
            policy = solenoid.Policy(read=read, **given)  # type: ignore[arg-type]
            return run(policy, *python, verb, str(to)).stderr

        assert said("connect", port, connect=(port,)) == ""
        assert "PermissionError" in said("connect", port, connect=(unused,))
        assert said("bind", unused, bind=(unused,), connect=()) == ""
        assert "PermissionError" in said("bind", unused, bind=(port,))
        assert said("connect", port) == ""


def test_statuses(tmp_path: Path) -> None:
    """The command's status is what comes out; what cannot be run says why."""
    policy = solenoid.Policy()
    assert run(policy, "sh", "-c", "exit 7").returncode == 7
    missing = run(policy, "no-such-program")
    assert (missing.returncode, missing.stderr) == (
        127,
        "solenoid: no-such-program: No such file or directory\n",
    )
    (tmp_path / "plain").touch()
    assert run(policy, str(tmp_path / "plain")).returncode == 126
    if _landlock.version():
        # What may not be written is not opened, though the shell is root's.
        denied = run(policy, "sh", "-c", f"> {tmp_path}/x")
        assert "Permission denied" in denied.stderr


def test_descriptors(tmp_path: Path) -> None:
    """What we have left open is closed for the app, at every level; 3 is kept."""
    # 900 is free, however many tests have run in this process.
    listing = "for f in /proc/self/fd/*; do echo ${f##*/}; done"
    for level in ("strict", "default", "off"):
        if level == "strict" and solenoid.Policy().lacking:
            continue
        with (tmp_path / "open").open("w") as file:
            os.dup2(file.fileno(), 900, inheritable=True)
            try:
                ended = subprocess.run(
                    [*solenoid.Policy(level).words(), "sh", "-c", listing],
                    capture_output=True,
                    text=True,
                    check=True,
                    pass_fds=(900,),
                )
            finally:
                os.close(900)
        assert "0\n1\n2\n" in ended.stdout
        assert "900" not in ended.stdout


@as_root
def test_release_is_private(place: Path) -> None:
    """All of a release is its user's alone; links lead to what stays as it was."""
    target = place / "target"
    target.touch(0o644)
    before = target.stat()
    package = place / "release" / "package"
    (package / "deep").mkdir(parents=True)
    (package / "deep" / "run").touch(0o777)
    (package / "deep" / "run").chmod(0o6777)
    (package / "link").symlink_to(target)
    (package / "to-folder").symlink_to(place)
    (place / "release" / ".tmp").symlink_to(place)
    user = solenoid.User("somebody", NOBODY, NOBODY)
    made = asyncio.run(solenoid.restrict_filesystem(place / "release", user))
    assert made == place / "release" / ".tmp"
    assert stat.S_IMODE(made.lstat().st_mode) == 0o700
    for path in (place / "release", *(place / "release").rglob("*")):
        assert (path.lstat().st_uid, path.lstat().st_gid) == (NOBODY, NOBODY), path
        if not path.is_symlink():
            assert stat.S_IMODE(path.stat().st_mode) == 0o700, path
    assert (target.stat().st_uid, target.stat().st_mode) == (0, before.st_mode)
    assert place.stat().st_uid == 0
    missing = place / "missing" / "release"
    with pytest.raises(solenoid.RestrictError, match="No such file"):
        asyncio.run(solenoid.restrict_filesystem(missing, user))


@as_root
def test_user_is_made() -> None:
    """A system user is made once, cannot log in, and is found again."""
    name = solenoid.user_of("forza-test", f"app {os.getpid()}")
    try:
        made = asyncio.run(solenoid.ensure_user(name))
        entry = pwd.getpwnam(name)
        assert (made.uid, made.gid) == (entry.pw_uid, entry.pw_gid)
        assert 0 < made.uid < 1000
        assert entry.pw_shell.endswith("nologin")
        assert asyncio.run(solenoid.ensure_user(name)) == made
    finally:
        subprocess.run(["userdel", name], check=True, capture_output=True)


@as_root
def test_no_such_user() -> None:
    """Root is no user for an app, nor is what useradd would take for an option."""
    for name, why in {"root": "is root", "-o": "cannot be", "A B": "cannot be"}.items():
        with pytest.raises(solenoid.RestrictError, match=why):
            asyncio.run(solenoid.ensure_user(name))


def test_user_names() -> None:
    """Each app has another, that useradd takes, however it is called."""
    pairs = [("a", "b-c"), ("a-b", "c"), ("A", "b-c"), ("ä", "ö" * 90), ("", "")]
    names = [solenoid.user_of(*pair) for pair in pairs]
    assert len(set(names)) == len(names)
    assert all(len(name) <= 32 for name in names)
    assert all(name.startswith("app-") and name.isascii() for name in names)


def test_explain() -> None:
    """It says what is in force, and why the rest is not."""
    own = solenoid.User("me", os.geteuid(), os.getegid())
    other = solenoid.User("app", os.geteuid() + 1, 1)

    def told(policy: solenoid.Policy, user: solenoid.User) -> dict[str, Any]:
        return {m.name: m for m in solenoid.explain(policy, user)}

    default = told(solenoid.Policy(write=("/srv/x",)), own)
    assert not default["user"].in_force
    assert "needs root" in default["user"].detail
    assert default["files"].in_force == (_landlock.version() > 0)
    assert default["privileges"].in_force
    assert not default["network"].in_force
    assert not default["abstract sockets"].in_force
    assert told(solenoid.Policy(), other)["user"].in_force
    off = told(solenoid.Policy("off"), other)
    assert {name for name, m in off.items() if m.in_force} == {"user", "descriptors"}
    ports = told(solenoid.Policy("strict", bind=(80,), connect=()), own)["network"]
    assert ports.in_force == (_landlock.version() >= _landlock.NETWORK_SINCE)


def test_old_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an older kernel lacks is said; strict then refuses, rather than do less."""
    own = solenoid.User("me", os.geteuid(), os.getegid())
    for known, lacking in {0: "Landlock", 2: "scopes", 4: "scopes"}.items():
        monkeypatch.setattr(_landlock, "version", lambda known=known: known)
        strict = solenoid.Policy("strict")
        assert lacking in strict.lacking[0]
        with pytest.raises(OSError, match="which strict needs"):
            confine(strict)
        told = {m.name: m.in_force for m in solenoid.explain(strict, own)}
        assert told["files"] == (known > 0)
        assert not told["signals"]
    monkeypatch.setattr(_landlock, "version", lambda: 2)
    assert len(solenoid.Policy("strict", bind=(80,)).lacking) == 2


@pytest.mark.skipif(not _landlock.version(), reason="this kernel has no Landlock")
@pytest.mark.parametrize("known", range(1, _landlock.version() + 1))
def test_each_version(tmp_path: Path, known: int) -> None:
    """What is asked of each older version, the kernel takes, and files are closed."""
    program = (
        "from solenoid import _landlock\n"
        "from solenoid._confine import Policy, confine\n"
        f"_landlock.version = lambda: {known}\n"
        f"confine(Policy(read=({str(tmp_path)!r},), bind=(80,)))\n"
        f"open({str(tmp_path)!r} + '/x', 'w')\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert ended.stderr.splitlines()[-1].startswith("PermissionError"), ended.stderr
    assert ended.returncode != -signal.SIGSYS


def test_a_link_at_the_wrong_moment(place: Path) -> None:
    """Whoever puts links among the files while they are given away gains nothing."""
    release, victim = place / "release", place / "victim"
    release.mkdir()
    victim.write_text("somebody else's")
    victim.chmod(0o644)
    us = solenoid.User("us", os.geteuid(), os.getegid())
    user = solenoid.User("nobody", 65534, 65534) if ROOT else us
    name = release / "name"
    name.write_text("")
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            (place / "file").write_text("")
            os.replace(place / "file", name)
            (place / "link").symlink_to(victim)
            os.replace(place / "link", name)

    racing = threading.Thread(target=swap)
    racing.start()
    try:
        for _ in range(300):
            asyncio.run(solenoid.restrict_filesystem(release, user))
    finally:
        done.set()
        racing.join()
    about = victim.stat()
    assert (stat.S_IMODE(about.st_mode), about.st_uid) == (0o644, us.uid)
