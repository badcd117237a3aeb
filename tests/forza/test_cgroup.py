# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""A cgroup of the app's own: only below what is ours, and all of it or nothing."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from forza._cgroup import Cgroup, confine
from forza._machine import cgroups


def make(root: Path, *, own: str, controllers: str = "cpu memory") -> Path:
    """Imitate a machine with cgroup v2 where we are in `own`; return its mount."""
    mount = root / "cgroup"
    folder = mount / own.strip("/")
    folder.mkdir(parents=True)
    for base in (mount, *(p for p in mount.rglob("*") if p.is_dir())):
        (base / "cgroup.controllers").write_text(controllers)
        (base / "cgroup.subtree_control").write_text("")
        (base / "cgroup.procs").write_text("")
    proc = root / "proc" / "self"
    proc.mkdir(parents=True)
    (proc / "cgroup").write_text(f"0::{own}\n")
    (proc / "mountinfo").write_text("1 1 0:1 / /cgroup rw - cgroup2 cgroup2 rw\n")
    return mount


def test_no_version_2(tmp_path: Path) -> None:
    """Without cgroups there is none to be had."""
    assert confine(os.getpid(), 1 << 30, str(tmp_path)) is None


def test_not_ours(tmp_path: Path) -> None:
    """Root may write everywhere, and writes only where it was told to be at home."""
    if os.geteuid() != 0:
        pytest.skip("an ordinary user's folders are its own")
    mount = make(tmp_path, own="/system.slice/app.service/leaf")
    assert confine(os.getpid(), 1 << 30, str(tmp_path)) is None
    assert not list(mount.rglob("forza-*"))
    assert {p.read_text() for p in mount.rglob("cgroup.subtree_control")} == {""}


def test_without_the_controller(tmp_path: Path) -> None:
    """A cgroup that hands on no memory is of no use."""
    make(tmp_path, own="/", controllers="cpu pids")
    assert confine(os.getpid(), 1 << 30, str(tmp_path)) is None


def test_half_a_cgroup_is_none(tmp_path: Path) -> None:
    """If a limit cannot be set, what was made for it is removed."""
    mount = make(tmp_path, own="/")  # its new folders have no memory.max
    assert confine(os.getpid(), 1 << 30, str(tmp_path)) is None
    assert (mount / "cgroup.subtree_control").read_text() == "+memory"
    assert not list(mount.glob("forza-*"))


def test_oom_kills(tmp_path: Path) -> None:
    """The kernel's own count is read."""
    (tmp_path / "memory.events").write_text("low 0\noom 2\noom_kill 3\n")
    group = Cgroup(str(tmp_path))
    assert group.oom_kills() == 3
    group.remove()  # is not empty, and stays
    assert tmp_path.exists()


def test_on_this_machine() -> None:
    """Where a cgroup v2 is delegated, a process is moved, limited and let go."""
    if cgroups("memory")[0] != 2:
        pytest.skip("no cgroup v2 with a memory controller here")
    child = subprocess.Popen(["sleep", "100"])
    try:
        group = confine(child.pid, 64 << 20)
        if group is None:
            pytest.skip("no cgroup v2 was delegated to us")
        path = Path(group.path)
        assert (path / "memory.max").read_text().strip() == str(64 << 20)
        assert str(child.pid) in (path / "cgroup.procs").read_text().split()
    finally:
        child.kill()
        child.wait()
    group.remove()
    assert not path.exists()
