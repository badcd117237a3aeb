# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Install by a real npm: only when needed, as another user, without secrets."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import solenoid

if TYPE_CHECKING:
    from collections.abc import Iterator

# Says what it sees of its surroundings, if it is let.
SCRIPT = """
const seen = [process.env, process.getuid()]
require('fs').writeFileSync('ran', JSON.stringify(seen))
"""


@pytest.fixture
def engine_bin() -> Path:
    """The folder of the system's node."""
    node = shutil.which("node")
    assert node is not None
    return Path(node).parent


@pytest.fixture
def package() -> Iterator[Path]:
    """A package with a lock file and two dependencies that come from no registry."""
    # Not below tmp_path, which other users may not enter.
    with tempfile.TemporaryDirectory() as made:
        os.chmod(made, 0o755)
        path = Path(made) / "package"
        path.mkdir()
        for name in ("dep", "devdep"):
            about = {"name": name, "version": "1.0.0", "scripts": {"install": "node i"}}
            source = Path(made) / name
            source.mkdir()
            (source / "package.json").write_text(json.dumps(about))
            (source / "i.js").write_text(SCRIPT)
            words = ["npm", "pack", "--pack-destination", str(path), str(source)]
            subprocess.run(words, capture_output=True, check=True)
        about = {
            "name": "app",
            "version": "1.0.0",
            "dependencies": {"dep": "file:dep-1.0.0.tgz"},
            "devDependencies": {"devdep": "file:devdep-1.0.0.tgz"},
        }
        (path / "package.json").write_text(json.dumps(about))
        words = ["npm", "install", "--package-lock-only", "--no-audit"]
        subprocess.run(words, cwd=path, capture_output=True, check=True)
        yield path


def install(package: Path, engine_bin: Path, **options: object) -> bool:
    """Install, now."""
    return asyncio.run(solenoid.install(package, engine_bin, **options))  # type: ignore[arg-type]


def test_ci(package: Path, engine_bin: Path) -> None:
    """What the lock file says is installed, without what is for developers."""
    assert install(package, engine_bin)
    assert (package / "node_modules/dep/package.json").exists()
    assert not (package / "node_modules/devdep").exists()
    assert not (package / "node_modules/dep/ran").exists()
    assert not install(package, engine_bin), "it was there already"


def test_not_needed(package: Path, engine_bin: Path) -> None:
    """Without a lock file, or with modules, npm is not run at all."""
    (package / "package-lock.json").rename(package / "npm-shrinkwrap.json")
    (package / "node_modules").mkdir()
    assert not install(package, engine_bin)
    (package / "node_modules").rmdir()
    (package / "npm-shrinkwrap.json").unlink()
    assert not install(package, engine_bin)
    assert not (package / "node_modules").exists()


def test_scripts_and_secrets(
    package: Path, engine_bin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scripts run on request only, and then see nothing of ours."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    monkeypatch.setenv("https_proxy", "http://me:canary@127.0.0.1:1")
    assert install(package, engine_bin, scripts=True)
    text = (package / "node_modules/dep/ran").read_text()
    assert "canary" not in text
    environ, _ = json.loads(text)
    assert environ["NODE_ENV"] == "production"
    assert environ["HOME"] != os.path.expanduser("~")
    assert not os.path.exists(environ["HOME"])


@pytest.mark.skipif(os.getuid() != 0, reason="only root runs npm as another user")
def test_as_the_user(package: Path, engine_bin: Path) -> None:
    """npm and its scripts run as the app's user, who owns what they make."""
    if subprocess.run(
        [engine_bin / "node", "-v"], user=65534, group=65534, check=False
    ).returncode:
        pytest.skip("node is where other users cannot run it")
    assert install(package, engine_bin, uid=65534, gid=65534, scripts=True)
    _, uid = json.loads((package / "node_modules/dep/ran").read_text())
    assert uid == 65534
    owners = {path.lstat().st_uid for path in (package / "node_modules").rglob("*")}
    assert owners == {65534}


def test_lock_does_not_fit(package: Path, engine_bin: Path) -> None:
    """A lock file of another package.json is the user's; npm's words are kept."""
    about = json.loads((package / "package.json").read_text())
    about["dependencies"]["other"] = "1.0.0"
    (package / "package.json").write_text(json.dumps(about))
    with pytest.raises(solenoid.InstallError, match="npm ci ended with 1") as caught:
        install(package, engine_bin)
    assert caught.value.blame == "user"
    assert "EUSAGE" in str(caught.value)
    assert "package-lock.json" in caught.value.output
    assert not (package / "node_modules").exists()


def test_registry_away(package: Path, engine_bin: Path) -> None:
    """A registry that cannot be reached is the system's."""
    lock = json.loads((package / "package-lock.json").read_text())
    entry = lock["packages"]["node_modules/dep"]
    entry["resolved"] = "http://127.0.0.1:1/dep-1.0.0.tgz"
    (package / "package-lock.json").write_text(json.dumps(lock))
    about = json.loads((package / "package.json").read_text())
    about["dependencies"]["dep"] = "1.0.0"
    lock["packages"][""]["dependencies"]["dep"] = "1.0.0"
    (package / "package.json").write_text(json.dumps(about))
    (package / "package-lock.json").write_text(json.dumps(lock))
    (package / ".npmrc").write_text("fetch-retries=0\nregistry=http://127.0.0.1:1/\n")
    with pytest.raises(solenoid.InstallError, match="ECONNREFUSED") as caught:
        install(package, engine_bin)
    assert caught.value.blame == "system"
    assert not (package / "node_modules").exists()


def test_too_long(package: Path, engine_bin: Path) -> None:
    """It is ended when its time is up, and nothing is left."""
    with pytest.raises(solenoid.InstallError, match="took too long"):
        install(package, engine_bin, time_limit=0.0)
    assert not (package / "node_modules").exists()


def test_no_node(package: Path, tmp_path: Path) -> None:
    """An engine without a node is said to have none."""
    with pytest.raises(solenoid.InstallError, match="no node in"):
        install(package, tmp_path)
