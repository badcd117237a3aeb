# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Agree with npm's own semver on every version and range."""

from __future__ import annotations

import json
import subprocess
from typing import IO, TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from solenoid._semver import Range, parse_version
from tests.conftest import CHILDREN, PATIENCE
from tests.solenoid.conftest import CACHE, npm_package

if TYPE_CHECKING:
    from collections.abc import Iterator


class Npm:
    """A node that has npm's semver loaded, and is asked by lines."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        assert child.stdin is not None
        assert child.stdout is not None
        self._in: IO[str] = child.stdin
        self._out: IO[str] = child.stdout

    def __call__(self, text: str, versions: list[str]) -> dict[str, Any]:
        self._in.write(json.dumps([text, versions]) + "\n")
        self._in.flush()
        answer: dict[str, Any] = json.loads(self._out.readline())
        return answer


@pytest.fixture(scope="module")
def npm() -> Iterator[Npm]:
    """One node for all the questions."""
    package = npm_package(CACHE / "semver", "semver@7.8.6") / "semver"
    command = ["node", str(CHILDREN / "semver.js"), str(package)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        yield Npm(child)
        assert child.stdin is not None
        child.stdin.close()
        child.wait(PATIENCE)


def check(npm: Npm, text: str, versions: list[str]) -> None:
    """Compare all that we say with all that npm says."""
    theirs = npm(text, versions)
    parsed = [parse_version(version) for version in versions]
    assert [str(v) if v else None for v in parsed] == theirs["parsed"], versions
    try:
        ours = Range(text)
    except ValueError:
        assert not theirs["valid"], f"{text!r} is a range"
        return
    assert theirs["valid"], f"{text!r} is no range"
    within = [v is not None and ours.allows(v) for v in parsed]
    assert dict(zip(versions, within, strict=True)) == dict(
        zip(versions, theirs["within"], strict=True)
    ), text
    best = ours.best(v for v in parsed if v)
    assert best == (parse_version(theirs["best"]) if theirs["best"] else None), text


VERSIONS = [
    *("0.0.0", "0.0.1", "0.0.1-0", "0.1.0", "0.1.5", "0.2.0-rc.1", "0.6.21"),
    *("0.8.28", "0.10.16", "0.10.48", "0.12.18", "1.0.0-alpha", "1.0.0-alpha.1"),
    *("1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0", "1.0.0+x", "1.2.3"),
    *("1.2.3-0", "1.2.3-pre.2", "1.2.4", "1.3.0", "1.3.0-0", "2.0.0-0", "2.0.0"),
    *("4.9.1", "6.17.1", "16.20.2", "17.0.0-nightly", "18.20.8", "20.0.0"),
    *("20.11.0", "20.11.1-rc.0", "22.1.0", "v24.0.1", "x", "1.2", "01.2.3"),
    *("9007199254740991.0.0", "9007199254740992.0.0"),
]

# From package.json files of the wild, and what they should not have been.
RANGES = [
    *("", "*", "x", "X", "x.x", "1", "v1", "=1", "1.x", "1.2", "1.2.x", "1.2.*"),
    *("v1.2.3", ">=0.10", ">= 0.10", ">= 0.10.x", ">0.8", "<= 0.8", "<1", "<1.x"),
    *(">1.x", ">1", "0.10.x || 0.12.x", "0.8.x", "~0.10", "~> 0.8.0", "~1"),
    *("~ 1.2.3", "~1.2.3-pre.1", "^1", "^0", "^0.0", "^0.0.1", "^0.1"),
    *("^1.2.3-pre.2", "^ 1.2.3", "^0.0.1-0", "^x", "1 - 2", "1.2.3 - 1.3"),
    *("0.10 - 0.12", "x - 1", "1 - x", "1.2.3-0 - 1.3.0-0", ">=4 <7"),
    *(">=18 || ^16.20", ">=16.0.0 <17 || >=18", "18 || 20 || >=22", "||", "1||"),
    *("node", "latest", "lts/*", ">=4.0.0 node", "1.2.3.4", "a.b.c", "^^1", "> = 1"),
    *("=>1", "<x", ">x", "<=x", ">=*", "=x", "<0.0.0-0", ">=0.0.0", ">=0.0.0-0"),
    *("1.x.x", "1.x.3", "1.2.3+build", ">=1.2.3+build <2", "=v1.2.3", "==1.2.3"),
    *(">=v1.2.3", "> v 1", "v 1", " >=  1.2.3 \t <2\n", "01", "1.02", "-1"),
    *("^1.2.3 || bad", "~x", "~>1", "*.1", "1 2", "<1.2.3-pre.10"),
    *(">1.0.0-beta.2 <2", "9007199254740992", "^9007199254740990.1.1", "1.2.3 -1.3"),
    *("1.2.3- 1.3", ">1.2.3- <2", "1.2 - ", "20.11.1-rc.0", ">=20.11.1-rc"),
]


@pytest.mark.parametrize("text", RANGES)
def test_ranges_of_the_wild(npm: Npm, text: str) -> None:
    """What people write, and what they mistype, is read as npm reads it."""
    check(npm, text, VERSIONS)


numbers = st.sampled_from(["0", "1", "2", "3", "10", "x", "X", "*", "00", ""])
pre = st.sampled_from(
    ["", "", "", "-0", "-alpha", "-alpha.1", "-1.b", "-01", "+b.1", "-"]
)
partial = st.builds(
    lambda prefix, parts, suffix: prefix + ".".join(parts) + suffix,
    st.sampled_from(["", "", "", "v", "=", " ", "v "]),
    st.lists(numbers, min_size=1, max_size=4),
    pre,
)
operator = st.sampled_from(
    ["", "", "<", ">", "<=", ">=", "=", "~", "~>", "^", ">==", "- "]
)
comparator = st.builds(
    lambda sign, blank, version: sign + blank + version,
    operator,
    st.sampled_from(["", "", " "]),
    partial,
)
simple = st.one_of(
    st.lists(comparator, min_size=1, max_size=3).map(" ".join),
    st.tuples(partial, partial).map(" - ".join),
)
ranges = st.lists(simple, min_size=1, max_size=3).map(" || ".join)
versions = st.builds(
    lambda parts, suffix: ".".join(parts) + suffix,
    st.lists(st.sampled_from(["0", "1", "2", "3", "10", "11"]), min_size=3, max_size=3),
    pre,
)


@given(ranges, st.lists(versions, min_size=1, max_size=12, unique=True))
@settings(
    max_examples=1500,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_any_range(npm: Npm, text: str, versions: list[str]) -> None:
    """Whatever can be put together of the grammar's parts, likewise."""
    check(npm, text, versions)
