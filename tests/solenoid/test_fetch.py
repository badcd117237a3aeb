# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Fetch from servers that cut, crawl, corrupt, refuse and change their minds."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import solenoid
from solenoid._target import Target
from tests.conftest import PATIENCE, ROOT
from tests.solenoid.conftest import BUCKET
from tests.solenoid.servers import Behaviour, presigned

if TYPE_CHECKING:
    from tests.solenoid.servers import S3Server, WebServer

MIB = 1 << 20
LARGE = os.urandom(MIB) * 40 + b"and the end"


def fetch(url: str, to: Path, **options: Any) -> solenoid.Fetched:
    """Fetch, with short pauses."""
    return asyncio.run(solenoid.fetch(url, to, **options))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses are tested by their number, not by waiting."""
    monkeypatch.setattr("solenoid._retry._FIRST_PAUSE", 0.001)


def nothing_left(folder: Path) -> bool:
    """Say whether the folder is empty."""
    return not list(folder.iterdir())


def test_in_parts(web: WebServer, tmp_path: Path) -> None:
    """A large object comes by several connections at once, each part once."""
    web.objects["/a"] = LARGE
    seen: list[tuple[int, int | None]] = []
    fetched = fetch(
        f"{web.url}/a", tmp_path / "a", progress=lambda *at: seen.append(at)
    )
    assert (tmp_path / "a").read_bytes() == LARGE
    assert fetched == solenoid.Fetched(
        tmp_path / "a", len(LARGE), hashlib.sha256(LARGE).hexdigest(), None
    )
    assert sorted(web.ranges()[:3]) == [
        "bytes=0-16777215",
        "bytes=16777216-33554431",
        f"bytes=33554432-{len(LARGE) - 1}",
    ]
    assert web.most_active > 1
    assert [at for at, _ in seen] == sorted(at for at, _ in seen)
    assert seen[-1] == (len(LARGE), len(LARGE))


def test_one_connection(web: WebServer, tmp_path: Path) -> None:
    """It comes by one if that is what is wanted."""
    web.objects["/a"] = LARGE
    fetch(f"{web.url}/a", tmp_path / "a", connections=1)
    assert (tmp_path / "a").read_bytes() == LARGE
    assert web.most_active == 1


@pytest.mark.parametrize("size", [0, 1, 16 * MIB - 1, 16 * MIB, 16 * MIB + 1])
def test_sizes(web: WebServer, tmp_path: Path, size: int) -> None:
    """The ends of the parts meet."""
    web.objects["/a"] = LARGE[:size]
    fetched = fetch(f"{web.url}/a", tmp_path / "a")
    assert fetched.size == size
    assert (tmp_path / "a").read_bytes() == LARGE[:size]


@pytest.mark.parametrize(
    "how",
    [
        Behaviour(cut_after=5 * MIB),
        Behaviour(cut_after=5 * MIB, no_etag=True),
        Behaviour(cut_after=5 * MIB, weak_etag=True),
        Behaviour(cut_after=5 * MIB, cuts=3, ignore_range=True),
        Behaviour(cut_after=5 * MIB, cuts=3, chunked=True),
        Behaviour(ignore_range=True),
        Behaviour(ignore_range=True, no_length=True),
        Behaviour(ignore_range=True, chunked=True),
        Behaviour(chunked=True),
        Behaviour(fail=[503, 500, 429, 503]),
        Behaviour(fail=[-1, 502, -1]),
    ],
    ids=str,
)
def test_trouble(web: WebServer, tmp_path: Path, how: Behaviour) -> None:
    """Cut every 5 MB, without ranges, lengths or etags, or busy: it comes, whole."""
    web.objects["/a"], web.behaviour = LARGE, how
    fetched = fetch(
        f"{web.url}/a", tmp_path / "a", sha256=hashlib.sha256(LARGE).hexdigest()
    )
    assert fetched.digest_from == "argument"
    assert (tmp_path / "a").read_bytes() == LARGE


def test_resumes(web: WebServer, tmp_path: Path) -> None:
    """What has come is not asked for again."""
    data = LARGE[: 12 * MIB]
    web.objects["/a"], web.behaviour = data, Behaviour(cut_after=5 * MIB, cuts=2)
    fetch(f"{web.url}/a", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == data
    starts = [int(r.removeprefix("bytes=").partition("-")[0]) for r in web.ranges()[:3]]
    assert starts[0] == 0
    assert starts == sorted(starts)
    assert starts[1] > 4 * MIB
    assert web.requests[1][2]["if-range"].startswith('"')


def test_gives_up(web: WebServer, tmp_path: Path) -> None:
    """A server that never gets on is tried so often and no more; nothing is left."""
    web.objects["/a"], web.behaviour = LARGE, Behaviour(fail=[503] * 99)
    with pytest.raises(solenoid.TransientError, match=r"503 .*\(4 attempts\)"):
        fetch(f"{web.url}/a", tmp_path / "a", attempts=4)
    assert web.ranges() == ["bytes=0-16777215"] * 4
    assert nothing_left(tmp_path)


def test_ranges_ignored_and_cut(web: WebServer, tmp_path: Path) -> None:
    """Who begins anew each time and is cut each time is given up, too."""
    web.objects["/a"] = LARGE
    web.behaviour = Behaviour(cut_after=5 * MIB, ignore_range=True)
    with pytest.raises(solenoid.TransientError, match="attempts"):
        fetch(f"{web.url}/a", tmp_path / "a", attempts=3)
    assert len(web.ranges()) < 9
    assert nothing_left(tmp_path)


def test_nobody_listens(tmp_path: Path) -> None:
    """So is a server that isn't there."""
    with pytest.raises(solenoid.TransientError, match=r"127\.0\.0\.1:1/x.*2 attempts"):
        fetch("http://127.0.0.1:1/x?secret", tmp_path / "a", attempts=2)
    assert nothing_left(tmp_path)


def test_retry_after(
    web: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that names its time is not asked before."""
    paused: list[float] = []

    async def sleep(seconds: float) -> None:
        paused.append(seconds)

    web.objects["/a"] = b"content"
    web.behaviour = Behaviour(fail=[503, 503], retry_after="3")
    monkeypatch.setattr("solenoid._retry.asyncio.sleep", sleep)
    fetch(f"{web.url}/a", tmp_path / "a")
    assert paused == [3, 3]


def test_stalls(web: WebServer, tmp_path: Path) -> None:
    """A connection on which nothing comes is left for another one."""
    go_on = threading.Event()
    web.objects["/a"] = LARGE
    web.behaviour = Behaviour(stall=go_on, stall_after=3 * MIB)
    try:
        fetch(f"{web.url}/a", tmp_path / "a", stall=0.5, connections=1)
    finally:
        go_on.set()
    assert (tmp_path / "a").read_bytes() == LARGE
    assert len(web.ranges()) > 3


def test_a_byte_now_and_then(web: WebServer, tmp_path: Path) -> None:
    """A server that sends just so much as to keep a connection does not hold us."""
    web.objects["/a"] = LARGE
    web.behaviour = Behaviour(trickle=0.02)
    with pytest.raises(solenoid.FetchError, match=r"bytes? in 0\.5 s"):
        fetch(f"{web.url}/a", tmp_path / "a", stall=0.5, attempts=2, connections=1)
    assert len(web.ranges()) == 2
    assert os.listdir(tmp_path) == []


def test_flipped_bit(web: WebServer, tmp_path: Path) -> None:
    """One bit that is another is enough: it is refused, and nothing is there."""
    web.objects["/a"], web.behaviour = b"content" * 999, Behaviour(flip=True)
    digest = hashlib.sha256(web.objects["/a"]).hexdigest()
    with pytest.raises(solenoid.DigestError, match=f"SHA-256 is .*, not {digest}"):
        fetch(f"{web.url}/a", tmp_path / "a", sha256=digest.upper())
    assert nothing_left(tmp_path)


def test_digest_in_metadata(web: WebServer, tmp_path: Path) -> None:
    """What the metadata say holds, too."""
    web.objects["/a"] = b"content"
    web.behaviour = Behaviour(metadata={"x-amz-meta-sha256": "0" * 64})
    with pytest.raises(solenoid.DigestError, match="not 00000"):
        fetch(f"{web.url}/a", tmp_path / "a")
    assert nothing_left(tmp_path)


def test_digest_beside(web: WebServer, tmp_path: Path) -> None:
    """Or a file beside it; an argument is believed before either."""
    web.objects["/a"] = b"content"
    digest = hashlib.sha256(b"content").hexdigest()
    web.objects["/a.sha256"] = f"{digest}  a\n".encode()
    assert fetch(f"{web.url}/a", tmp_path / "a").digest_from == "beside"
    web.objects["/a.sha256"] = b"0" * 64
    with pytest.raises(solenoid.DigestError, match="not 00000"):
        fetch(f"{web.url}/a", tmp_path / "b")
    web.objects["/a.sha256"] = b"<html>"
    with pytest.raises(solenoid.DigestError, match="no SHA-256 in it"):
        fetch(f"{web.url}/a", tmp_path / "b")
    fetched = fetch(f"{web.url}/a", tmp_path / "b", sha256=digest)
    assert fetched.digest_from == "argument"


def test_no_digest_beside_a_signed_url(web: WebServer, tmp_path: Path) -> None:
    """A signature is for one object: there is no point in asking for another."""
    web.objects["/a?X-Amz-Signature=1"] = b"content"
    assert fetch(f"{web.url}/a?X-Amz-Signature=1", tmp_path / "a").digest_from is None
    assert len(web.requests) == 1


def test_not_a_digest(tmp_path: Path) -> None:
    """A digest that is none is the caller's mistake, seen before the first byte."""
    with pytest.raises(solenoid.DigestError, match="'abc' is not a SHA-256") as caught:
        fetch("http://127.0.0.1:1/x", tmp_path / "a", sha256="abc")
    assert caught.value.blame == "user"


def test_missing(web: WebServer, tmp_path: Path) -> None:
    """What is not there is not asked for twice."""
    with pytest.raises(solenoid.NotFoundError, match="/a: 404 Not Found") as caught:
        fetch(f"{web.url}/a", tmp_path / "a")
    assert (caught.value.step, caught.value.blame) == ("fetch", "user")
    assert len(web.requests) == 1
    assert nothing_left(tmp_path)


def test_expired(web: WebServer, tmp_path: Path) -> None:
    """A signature that is too old is said to be so, in S3's own words, at once."""
    web.behaviour = Behaviour(
        refuse="<Error><Code>AccessDenied</Code>"
        "<Message>Request has expired</Message></Error>"
    )
    with pytest.raises(
        solenoid.AccessError, match=r"403 Forbidden \(AccessDenied: Request has expired"
    ):
        fetch(f"{web.url}/a?X-Amz-Expires=1", tmp_path / "a")
    assert len(web.requests) == 1


def test_expires_on_the_way(web: WebServer, tmp_path: Path) -> None:
    """The same when it expires between a cut and the next attempt."""
    web.objects["/a"] = LARGE
    web.behaviour = Behaviour(cut_after=2 * MIB, fail=[0, 403, 403, 403])
    with pytest.raises(solenoid.AccessError, match="403"):
        fetch(f"{web.url}/a", tmp_path / "a")
    assert nothing_left(tmp_path)


def test_replaced_on_the_way(web: WebServer, tmp_path: Path) -> None:
    """An object that changes between two parts is fetched anew: never half and half."""
    web.objects["/a"] = LARGE
    web.behaviour = Behaviour(cut_after=5 * MIB, cuts=1, replace_after=1)
    fetched = fetch(f"{web.url}/a", tmp_path / "a", connections=1)
    assert (tmp_path / "a").read_bytes() == LARGE[::-1]
    assert fetched.sha256 == hashlib.sha256(LARGE[::-1]).hexdigest()


def test_redirected(web: WebServer, secure_web: WebServer, tmp_path: Path) -> None:
    """Redirections are followed, but not in circles, nor out of TLS."""
    web.objects["/b"] = b"content"
    web.behaviour.redirect = {"/a": "/b", "/c": "/d", "/d": "/c"}
    assert fetch(f"{web.url}/a", tmp_path / "a").size == 7
    with pytest.raises(solenoid.FetchError, match="over 5 redirections"):
        fetch(f"{web.url}/c", tmp_path / "c")


def test_not_out_of_tls(
    web: WebServer, secure_web: WebServer, authority: Any, tmp_path: Path
) -> None:
    """What was asked for under TLS does not come without."""
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    secure_web.behaviour.redirect = {"/a": f"{web.url}/a?secret"}
    web.objects["/a?secret"] = b"content"
    with pytest.raises(solenoid.FetchError, match="led from https to http") as caught:
        fetch(f"{secure_web.url}/a", tmp_path / "a", options={"cafile": str(ca)})
    assert "secret" not in str(caught.value)
    assert web.requests == []


def test_headers_stay_at_home(web: WebServer, tmp_path: Path) -> None:
    """A token is for the host it was given for, not for where that one leads."""
    web.objects["/b"] = b"content"
    there = web.url.replace("127.0.0.1", "localhost")
    web.behaviour.redirect = {"/a": f"{there}/b"}
    fetch(
        f"{web.url}/a", tmp_path / "a", options={"headers": {"Authorization": "t0ken"}}
    )
    sent = {path: headers for _, path, headers in web.requests}
    assert sent["/a"]["authorization"] == "t0ken"
    assert "authorization" not in sent["/b"]


def test_password(web: WebServer, tmp_path: Path) -> None:
    """A name and a password in the URL are sent, and not shown."""
    url = web.url.replace("//", "//me:p%40ss@")
    with pytest.raises(solenoid.NotFoundError) as caught:
        fetch(f"{url}/a", tmp_path / "a")
    assert web.requests[0][2]["authorization"] == "Basic bWU6cEBzcw=="
    assert "p%40ss" not in str(caught.value)


def test_too_large(web: WebServer, tmp_path: Path) -> None:
    """More than was allowed is refused, by what is said or by what comes."""
    web.objects["/a"] = LARGE
    for how in (Behaviour(), Behaviour(chunked=True, ignore_range=True)):
        web.behaviour = how
        with pytest.raises(solenoid.FetchError, match="larger than 3000000 bytes"):
            fetch(f"{web.url}/a", tmp_path / "a", max_bytes=3_000_000)
    assert nothing_left(tmp_path)


def test_no_room(web: WebServer, tmp_path: Path) -> None:
    """A folder that is not there, or a full disk, is said by the system's word."""
    web.objects["/a"] = b"content"
    with pytest.raises(solenoid.FetchError, match=r"cannot write .*No such file"):
        fetch(f"{web.url}/a", tmp_path / "none" / "a")
    program = (
        "import asyncio, resource, solenoid, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: asyncio.run(solenoid.fetch(*sys.argv[1:]))\n"
        "except solenoid.FetchError as error: print(error)\n"
    )
    web.objects["/a"] = LARGE
    ended = subprocess.run(
        [sys.executable, "-c", program, f"{web.url}/a", str(tmp_path / "a")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout == f"cannot write {tmp_path}/a: File too large\n"
    assert nothing_left(tmp_path)


@pytest.mark.parametrize(
    "url", ["http://", "http://a b/c", "http://x:99999/", "http://[::1/a", "https:a"]
)
def test_not_a_url(url: str, tmp_path: Path) -> None:
    """What is no URL is said to be none."""
    with pytest.raises(solenoid.FetchError, match="URL"):
        fetch(url, tmp_path / "a", attempts=1)


def test_cancelled(web: WebServer, tmp_path: Path) -> None:
    """Cancelled in the middle it ends at once and leaves nothing."""
    go_on = threading.Event()
    web.objects["/a"] = LARGE
    web.behaviour = Behaviour(stall=go_on, stall_after=3 * MIB)

    async def begin() -> None:
        begun = asyncio.Event()
        task = asyncio.create_task(
            solenoid.fetch(
                f"{web.url}/a", tmp_path / "a", progress=lambda *_: begun.set()
            )
        )
        await asyncio.wait_for(begun.wait(), PATIENCE)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(begin())
    go_on.set()
    assert nothing_left(tmp_path)


def test_killed(web: WebServer, tmp_path: Path) -> None:
    """What a killed process left is gone after the next; the old file stays whole."""
    (tmp_path / "a").write_bytes(b"old")
    go_on = threading.Event()
    web.objects["/a"] = LARGE
    web.behaviour = Behaviour(stall=go_on, stall_after=3 * MIB)
    program = (
        "import asyncio, solenoid, sys\n"
        "asyncio.run(solenoid.fetch(*sys.argv[1:], progress=lambda *_: "
        "print(flush=True)))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, f"{web.url}/a", str(tmp_path / "a")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline()
        child.kill()
    go_on.set()
    assert (tmp_path / "a").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 2
    fetch(f"{web.url}/a", tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == LARGE


def test_a_living_one_is_left_alone(tmp_path: Path) -> None:
    """Two that make the same file do not take each other's parts away."""
    with Target(tmp_path / "a") as first, Target(tmp_path / "a") as second:
        first.write([b"first"], 0)
        second.write([b"sec", b"", b"ond"], 0)
        second.commit()
        first.commit()
    assert (tmp_path / "a").read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_one_storage_for_many(s3: S3Server, tmp_path: Path) -> None:
    """A storage of the caller's serves many fetches, and stays open."""
    from solenoid.storage import open_storage

    async def many() -> None:
        storage = open_storage("s3:", s3.options)
        try:
            await solenoid.push(__file__, f"s3://{BUCKET}/many", storage=storage)
            await asyncio.gather(
                *(
                    solenoid.fetch(
                        f"s3://{BUCKET}/many", tmp_path / str(n), storage=storage
                    )
                    for n in range(5)
                )
            )
        finally:
            await storage.close()

    asyncio.run(many())
    assert {path.read_text() for path in tmp_path.iterdir()} == {
        Path(__file__).read_text()
    }


MEASURED = """
import asyncio, json, solenoid, sys
asyncio.run(solenoid.fetch(*sys.argv[1:3], options=json.loads(sys.argv[3])))
with open("/proc/self/status") as file:
    (peak,) = (line.split()[1] for line in file if line.startswith("VmHWM"))
print(json.dumps({"peak": int(peak), "modules": sorted(sys.modules)}))
"""


def measured(url: str, to: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Fetch in a fresh process and return its peak memory in KiB, and its modules."""
    ended = subprocess.run(
        [sys.executable, "-c", MEASURED, url, str(to), json.dumps(options)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


@pytest.fixture
def huge(rclone: S3Server, tmp_path: Path) -> str:
    """The name of an object of 200 MB, which is a hole and costs nothing to make."""
    path = tmp_path / "huge"
    with path.open("wb") as file:
        file.truncate(200_000_000)
    asyncio.run(solenoid.push(path, f"s3://{BUCKET}/huge.tgz", options=rclone.options))
    return "huge.tgz"


def test_memory(rclone: S3Server, huge: str, tmp_path: Path) -> None:
    """However large: 30 MB with a presigned URL, 80 MB with the client."""
    link = presigned(rclone, BUCKET, huge)
    found = measured(link, tmp_path / "out", {})
    assert (tmp_path / "out").stat().st_size == 200_000_000
    assert found["peak"] * 1024 <= 30_000_000
    for heavy in ("aiobotocore", "aiohttp", "email", "http", "urllib.request"):
        assert heavy not in found["modules"]
    found = measured(f"s3://{BUCKET}/{huge}", tmp_path / "out2", rclone.options)
    assert (tmp_path / "out2").stat().st_size == 200_000_000
    assert found["peak"] * 1024 <= 80_000_000


def test_memory_with_tls(secure_web: WebServer, authority: Any, tmp_path: Path) -> None:
    """TLS included."""
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    secure_web.objects["/a"] = LARGE * 2
    options = {"cafile": str(ca)}
    found = measured(f"{secure_web.url}/a", tmp_path / "out", options)
    assert found["peak"] * 1024 <= 30_000_000
