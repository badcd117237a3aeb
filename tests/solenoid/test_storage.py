# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Hold every storage to the contract, and each to what it alone promises."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import solenoid
from solenoid.storage import Part, open_storage, redacted
from solenoid.storage.file import path_of
from solenoid.testing import check_storage
from tests.solenoid.conftest import BUCKET
from tests.solenoid.servers import presigned, read

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    import trustme

    from solenoid.storage import Progress
    from tests.solenoid.servers import S3Server, WebServer


def test_file_contract(tmp_path: Path) -> None:
    """A folder is a storage."""
    asyncio.run(check_storage(open_storage("file:"), f"file:{tmp_path}/a/b"))
    asyncio.run(check_storage(open_storage("x"), f"{tmp_path}/c"))


def test_http_contract(web: WebServer) -> None:
    """A web server that takes PUT is a storage."""
    asyncio.run(check_storage(open_storage(web.url), f"{web.url}/some/folder"))


def test_https_contract(
    secure_web: WebServer, authority: trustme.CA, tmp_path: Path
) -> None:
    """So is one with a certificate of one's own authority."""
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    storage = open_storage(secure_web.url, {"cafile": str(tmp_path / "ca.pem")})
    asyncio.run(check_storage(storage, secure_web.url))


def test_s3_contract(s3: S3Server) -> None:
    """Servers that speak S3 are storages, whatever they make of a range."""
    storage = open_storage("s3:", s3.options)
    asyncio.run(check_storage(storage, f"s3://{BUCKET}/contract"))


def test_the_contract_finds_faults(tmp_path: Path) -> None:
    """A storage that does not keep it is told which point."""
    good = open_storage("file:")

    class Forgetful:
        def get(
            self, url: str, *, start: int = 0, stop: int | None = None, etag: str = ""
        ) -> AbstractAsyncContextManager[Part]:
            return good.get(url, start=start, stop=stop)

        async def put(
            self,
            url: str,
            path: Path,
            *,
            sha256: str,
            progress: Progress | None = None,
        ) -> None:
            await good.put(url, path, sha256=sha256)

        async def close(self) -> None:
            await good.close()

    with pytest.raises(AssertionError, match="part of another object"):
        asyncio.run(check_storage(Forgetful(), str(tmp_path)))


def test_not_trusted(secure_web: WebServer, tmp_path: Path) -> None:
    """A certificate nobody has vouched for ends it at once: no retry mends that."""
    with pytest.raises(solenoid.FetchError, match="certificate") as caught:
        asyncio.run(solenoid.fetch(f"{secure_web.url}/x", tmp_path / "x"))
    assert not isinstance(caught.value, solenoid.TransientError)
    assert secure_web.requests == []


def test_unknown_scheme() -> None:
    """What there is no storage for is said, and what there is."""
    with pytest.raises(solenoid.StorageError, match=r"no storage for gopher: .*https"):
        open_storage("gopher://x/y")


@pytest.mark.parametrize("scheme", ["file", "https", "s3"])
def test_unknown_option(scheme: str) -> None:
    """A slip in an option is not ignored."""
    with pytest.raises(solenoid.StorageError, match="no option 'regoin'"):
        open_storage(f"{scheme}://x/y", {"regoin": "x"})


def test_installed_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package brings a storage for a scheme by its entry point."""
    (tmp_path / "shelf.py").write_text(
        "from solenoid.storage.file import FileStorage\n"
        "class Shelf(FileStorage):\n"
        "    def __init__(self, options):\n"
        "        super().__init__({})\n"
        "        self.options = options\n"
    )
    about = tmp_path / "shelf-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: shelf\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[solenoid.storage]\nshelf = shelf:Shelf\n")
    monkeypatch.syspath_prepend(tmp_path)
    storage = open_storage("shelf:a/b", {"colour": "red"})
    assert type(storage).__name__ == "Shelf"
    assert vars(storage)["options"] == {"colour": "red"}


def test_redacted() -> None:
    """A URL that is shown gives nothing away: no signature, no password."""
    shown = redacted("https://me:secret@host:8/a/b.tgz?X-Amz-Signature=secret#secret")
    assert shown == "https://host:8/a/b.tgz?..."
    assert redacted("https://[bad/secret") == "https:..."
    assert redacted("file:/a?b") == "file:/a?b"


def test_paths() -> None:
    """A path may be relative, absolute or escaped, and is on this machine."""
    assert str(path_of("file:./a%20b.tgz")) == "a b.tgz"
    assert str(path_of("file:///a/b")) == "/a/b"
    assert str(path_of("file://localhost/a/b")) == "/a/b"
    assert str(path_of("./100%25")) == "100%25"
    with pytest.raises(solenoid.StorageError, match="another host"):
        path_of("file://elsewhere/a")


def test_not_a_file(tmp_path: Path) -> None:
    """Only regular files are read: a FIFO would hang, a folder has no bytes."""
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(solenoid.FetchError, match="folder: solenoid pack") as caught:
        asyncio.run(solenoid.fetch(str(tmp_path), tmp_path / "to"))
    assert caught.value.blame == "user"
    fifo = os.open(tmp_path / "fifo", os.O_RDWR)
    with pytest.raises(solenoid.FetchError, match="not a regular file"):
        asyncio.run(solenoid.fetch(str(tmp_path / "fifo"), tmp_path / "to"))
    os.close(fifo)


def test_digest_travels(s3: S3Server, tmp_path: Path) -> None:
    """What is pushed to S3 is checked when it is fetched, without a word."""
    data = os.urandom(100_000)
    (tmp_path / "in").write_bytes(data)
    url = f"s3://{BUCKET}/digest/a.tgz"
    pushed = asyncio.run(solenoid.push(tmp_path / "in", url, options=s3.options))
    assert (pushed.size, pushed.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    fetched = asyncio.run(solenoid.fetch(url, tmp_path / "out", options=s3.options))
    assert (tmp_path / "out").read_bytes() == data
    assert fetched.digest_from == "metadata"
    assert fetched.sha256 == pushed.sha256


def test_large_objects_go_in_parts(s3: S3Server, tmp_path: Path) -> None:
    """More than one part is put and fetched, by S3 and by a presigned URL."""
    data = os.urandom(1 << 20) * 37 + b"end"
    (tmp_path / "in").write_bytes(data)
    url = f"s3://{BUCKET}/large.tgz"
    asyncio.run(solenoid.push(tmp_path / "in", url, options=s3.options))
    asyncio.run(solenoid.fetch(url, tmp_path / "out", options=s3.options))
    assert (tmp_path / "out").read_bytes() == data
    link = presigned(s3, BUCKET, "large.tgz")
    fetched = asyncio.run(solenoid.fetch(link, tmp_path / "out2"))
    assert (tmp_path / "out2").read_bytes() == data
    assert fetched.digest_from == "metadata"


def test_presigned_put(s3: S3Server, tmp_path: Path) -> None:
    """An operator may push without credentials, too."""
    (tmp_path / "in").write_bytes(b"content")
    link = presigned(s3, BUCKET, "put.tgz", "put_object")
    asyncio.run(solenoid.push(tmp_path / "in", link))
    assert read(presigned(s3, BUCKET, "put.tgz")) == b"content"


def test_presigned_get(s3: S3Server, tmp_path: Path) -> None:
    """A URL that we sign fetches this object without credentials, and no other."""
    one, other = (f"s3://{BUCKET}/presigned/{name}" for name in ("a b.tgz", "c.tgz"))
    (tmp_path / "one").write_bytes(b"data")

    async def main() -> None:
        for url in (one, other):
            await solenoid.push(tmp_path / "one", url, options=s3.options)
        storage = open_storage("s3:", s3.options)
        url = await storage.presign(one, 600)  # type: ignore[attr-defined]
        await storage.close()
        await solenoid.fetch(url, tmp_path / "two")
        assert (tmp_path / "two").read_bytes() == b"data"
        assert "X-Amz-Signature" in url
        if s3.name == "rclone":  # the others check no signatures
            with pytest.raises(solenoid.AccessError):
                await solenoid.fetch(url.replace("a%20b", "c"), tmp_path / "three")

    asyncio.run(main())


def test_wrong_key(rclone: S3Server, tmp_path: Path) -> None:
    """Who has the wrong key is told so, once, and nothing is left."""
    options = {**rclone.options, "key": "another"}
    with pytest.raises(solenoid.AccessError, match="403 SignatureDoesNotMatch"):
        asyncio.run(
            solenoid.fetch(f"s3://{BUCKET}/x.tgz", tmp_path / "x", options=options)
        )
    with pytest.raises(solenoid.PushError, match="403 SignatureDoesNotMatch"):
        asyncio.run(solenoid.push(__file__, f"s3://{BUCKET}/x.tgz", options=options))
    assert list(tmp_path.iterdir()) == []


def test_tampered_signature(rclone: S3Server, tmp_path: Path) -> None:
    """So is who comes with a presigned URL for something else; the URL is not shown."""
    link = presigned(rclone, BUCKET, "a.tgz").replace("a.tgz", "b.tgz")
    with pytest.raises(solenoid.AccessError, match=r"403 .*Signature") as caught:
        asyncio.run(solenoid.fetch(link, tmp_path / "x"))
    assert "X-Amz-" not in str(caught.value)


def test_no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without credentials anywhere it says just that."""
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(solenoid.AccessError, match="credentials"):
        asyncio.run(
            solenoid.fetch(
                "s3://bucket/x", tmp_path / "x", options={"endpoint": "127.0.0.1:1"}
            )
        )


def test_profiles_and_environment(
    rclone: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Credentials come from profiles and from the environment, as with AWS's tools."""
    (tmp_path / "credentials").write_text(
        "[deploy]\naws_access_key_id = an-id\naws_secret_access_key = a-secret\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    url = f"s3://{BUCKET}/profile.tgz"
    options = {"endpoint": rclone.endpoint, "profile": "deploy"}
    asyncio.run(solenoid.push(__file__, url, options=options))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "an-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", rclone.endpoint)
    fetched = asyncio.run(
        solenoid.fetch(url, tmp_path / "x", options={"forcePathBucket": True})
    )
    assert fetched.size == os.path.getsize(__file__)
    with pytest.raises(solenoid.StorageError, match="nobody"):
        asyncio.run(solenoid.fetch(url, tmp_path / "y", options={"profile": "nobody"}))


def test_pkgcloud_options(rclone: S3Server, tmp_path: Path) -> None:
    """A `storage` that was written for pkgcloud works as it is."""
    options = {
        "provider": "amazon",
        "container": BUCKET,
        "accessKeyId": "an-id",
        "accessKey": "a-secret",
        "protocol": "http://",
        "serversUrl": rclone.endpoint.removeprefix("http://"),
        "forcePathBucket": True,
    }
    url = f"s3://{BUCKET}/pkgcloud.tgz"
    asyncio.run(solenoid.push(__file__, url, options=options))
    asyncio.run(solenoid.fetch(url, tmp_path / "x", options=options))
    assert (tmp_path / "x").read_text() == Path(__file__).read_text()


def test_push_of_nothing(tmp_path: Path) -> None:
    """A file that is not there is the user's own mistake."""
    with pytest.raises(solenoid.PushError, match="No such file") as caught:
        asyncio.run(solenoid.push(tmp_path / "none", f"file:{tmp_path}/x"))
    assert caught.value.blame == "user"
