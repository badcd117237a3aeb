# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""A cgroup of the app's own: only below what is ours, and all of it or nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from forza._cgroup import Cgroup, make


def machine(root: Path, *, own: str, controllers: str = "cpu memory") -> Path:
    """Imitate a machine with cgroup v2 where we are in `own`; return its mount."""
    mount = root / "cgroup"
    folder = mount / own.strip("/")
    folder.mkdir(parents=True)
    for base in (mount, *(p for p in mount.rglob("*") if p.is_dir())):
        (base / "cgroup.controllers").write_text(controllers)
        (base / "cgroup.subtree_control").write_text("")
        (base / "cgroup.procs").write_text("")
        (base / "cgroup.type").write_text("domain")
    proc = root / "proc" / "self"
    proc.mkdir(parents=True)
    (proc / "cgroup").write_text(f"0::{own}\n")
    (proc / "mountinfo").write_text("1 1 0:1 / /cgroup rw - cgroup2 cgroup2 rw\n")
    return mount


def test_no_version_2(tmp_path: Path) -> None:
    """Without cgroups there is none to be had."""
    assert make(1 << 30, str(tmp_path)) is None
    assert make(None, str(tmp_path)) is None


def test_not_ours(tmp_path: Path) -> None:
    """Root may write everywhere, and writes only where it was told to be at home."""
    if os.geteuid() != 0:
        pytest.skip("an ordinary user's folders are its own")
    mount = machine(tmp_path, own="/system.slice/app.service/leaf")
    assert make(1 << 30, str(tmp_path)) is None
    assert make(None, str(tmp_path)) is None
    assert not list(mount.rglob("forza-*"))
    assert {p.read_text() for p in mount.rglob("cgroup.subtree_control")} == {""}


def test_the_root_of_the_machine(tmp_path: Path) -> None:
    """The topmost cgroup of all is nobody's: it has no type."""
    if os.geteuid() != 0:
        pytest.skip("an ordinary user's folders are its own")
    mount = machine(tmp_path, own="/")
    (mount / "cgroup.type").unlink()
    assert make(None, str(tmp_path)) is None
    assert not list(mount.rglob("forza-*"))


def test_half_a_cgroup_is_none(tmp_path: Path) -> None:
    """If a limit cannot be set, what was made for it is removed."""
    mount = machine(tmp_path, own="/")  # its new folders have no memory.max
    assert make(1 << 30, str(tmp_path)) is None
    assert (mount / "cgroup.subtree_control").read_text() == "+memory"
    assert not list(mount.glob("forza-*"))


def test_a_kernel_without_cgroup_kill(tmp_path: Path) -> None:
    """Before Linux 5.14 a cgroup of its own would be of no use."""
    mount = machine(tmp_path, own="/", controllers="cpu pids")
    assert make(None, str(tmp_path)) is None
    assert not list(mount.glob("forza-*"))


def test_oom_kills(tmp_path: Path) -> None:
    """The kernel's own count is read, and remembered once the cgroup is gone."""
    (tmp_path / "memory.events").write_text("low 0\noom 2\noom_kill 3\n")
    group = Cgroup(str(tmp_path), limited=True)
    assert group.oom_kills() == 3
    assert not group.remove()  # is not empty, and stays
    (tmp_path / "memory.events").unlink()
    assert group.oom_kills() == 3
    assert group.remove()
    assert group.remove()
