# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Make an app's environment from what it is given, and leak none of it."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

import solenoid

if TYPE_CHECKING:
    from pathlib import Path


def test_contract() -> None:
    """Ours, overlaid in order; NODE_ENV may be given, who and where the app is not."""
    environ = solenoid.app_environ(
        {"LANG": "C", "PATH": "/bin", "USER": "root", "A": "0", "B": "0"},
        {"A": "1", "B": "1", "HOME": "/root"},
        {"B": "2", "USER": "mallory"},
        package="/run/snapshot/package",
        tmp="/run/snapshot/.tmp",
        user="solenoid",
        engines=["/opt/node/bin", "/opt/coffee/bin"],
    )
    assert environ == {
        "LANG": "C",
        "A": "1",
        "B": "2",
        "NODE_ENV": "production",
        "USER": "solenoid",
        "HOME": "/run/snapshot/package",
        "TEMP": "/run/snapshot/.tmp",
        "TMPDIR": "/run/snapshot/.tmp",
        "PATH": "/run/snapshot/package/node_modules/.bin"
        ":/opt/node/bin:/opt/coffee/bin:/bin",
    }


def make(base: dict[str, str], *given: dict[str, str]) -> dict[str, str]:
    """Make an environment where the rest does not matter."""
    return solenoid.app_environ(base, *given, package="/p", tmp="/t", user="u")


def test_node_env_and_path() -> None:
    """NODE_ENV may come from either side; PATH goes on as given, if at all."""
    assert make({"NODE_ENV": "staging"})["NODE_ENV"] == "staging"
    assert make({"NODE_ENV": "a"}, {"NODE_ENV": "b"})["NODE_ENV"] == "b"
    assert make({})["PATH"] == "/p/node_modules/.bin"
    assert make({"PATH": "/a"}, {"PATH": "/b"})["PATH"] == "/p/node_modules/.bin:/b"


def test_credentials_stay() -> None:
    """What opens our storage, or speaks to us alone, is not the app's; hers is."""
    ours = dict.fromkeys(
        (
            *("AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "GOOGLE_APPLICATION_CREDENTIALS"),
            *("AZURE_STORAGE_KEY", "OS_PASSWORD", "SSH_AUTH_SOCK", "SUDO_USER"),
            *("NOTIFY_SOCKET", "LISTEN_FDS", "PYTHONPATH", "LD_PRELOAD", "_"),
        ),
        "canary",
    )
    kept = {"LANG": "C", "TZ": "UTC", "OSTYPE": "x", "http_proxy": "p"}
    environ = make({**ours, **kept})
    assert "canary" not in environ.values()
    assert environ.items() >= kept.items()
    assert make(ours, {"AWS_PROFILE": "hers"})["AWS_PROFILE"] == "hers"


def test_pure() -> None:
    """Nothing that is handed in is changed."""
    base, given = {"A": "1"}, {"A": "2"}
    make(base, given)
    assert (base, given) == ({"A": "1"}, {"A": "2"})


def test_json() -> None:
    """Strings are taken as they are, numbers and booleans as node writes them."""
    text = '{"A": "x y", "B": 8080, "C": true, "D": 1.5, "E": "", "F-g.h": "ä\\n"}'
    assert solenoid.parse_json(text) == {
        **{"A": "x y", "B": "8080", "C": "true"},
        **{"D": "1.5", "E": "", "F-g.h": "ä\n"},
    }


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"KEY": canary}', "--app-env is not JSON: Expecting value: line 1 column 9"),
        ("", "--app-env is not JSON"),
        ('["canary"]', "--app-env is not a JSON object"),
        ('"canary"', "--app-env is not a JSON object"),
        ('{"KEY": {"a": "canary"}}', "KEY is not a string, number or boolean"),
        ('{"KEY": null}', "KEY is not a string, number or boolean"),
        ('{"KEY": "canary\\u0000"}', "KEY has a NUL"),
        ('{"K=Y": "canary"}', "'K=Y' cannot be a variable's name"),
        ('{"": "canary"}', "'' cannot be"),
    ],
)
def test_bad_json(text: str, why: str) -> None:
    """A mistake is an error, whose text has no value in it."""
    with pytest.raises(solenoid.EnvironError) as caught:
        solenoid.parse_json(text)
    error: BaseException | None = caught.value
    assert why in str(error)
    # Nor has a traceback that somebody logs.
    while error is not None:
        assert "canary" not in str(error)
        error = None if error.__suppress_context__ else error.__context__


FILE = r"""
# a comment
PLAIN=value
export EXPORTED = with blanks
EMPTY=
HASH=a#b # and a comment
SINGLE='a "b" \n $X # c' # end
DOUBLE="a 'b'\n\t\"c\" \\ # d"
LINES="one
two"
URL=https://u:p@h/?a=b&c=d
"""
VALUES = {
    "PLAIN": "value",
    "EXPORTED": "with blanks",
    "EMPTY": "",
    "HASH": "a#b",
    "SINGLE": r'a "b" \n $X # c',
    "DOUBLE": "a 'b'\n\t\"c\" \\ # d",
    "LINES": "one\ntwo",
    "URL": "https://u:p@h/?a=b&c=d",
}


def test_env_file() -> None:
    """Lines, quotes, comments; with any line ends and byte order marks."""
    assert solenoid.parse_env_file(FILE) == VALUES
    assert solenoid.parse_env_file("\ufeff" + FILE.replace("\n", "\r\n")) == VALUES
    assert solenoid.parse_env_file("A=1\nA=2") == {"A": "2"}
    assert solenoid.parse_env_file("") == {}


def test_as_node_reads_it(tmp_path: Path) -> None:
    """What node's own --env-file understands is the same here."""
    node = shutil.which("node")
    assert node is not None
    text = "A=1\nexport B=two words\nC='x # y'\nD=\"p\nq\"\nE=\nG=z # t\n"
    (tmp_path / "env").write_text(text)
    program = "console.log(JSON.stringify(process.env))"
    said = subprocess.run(
        [node, f"--env-file={tmp_path}/env", "-e", program],
        env={},
        capture_output=True,
        check=True,
    ).stdout
    assert json.loads(said).items() >= solenoid.parse_env_file(text).items()


@pytest.mark.parametrize(
    "line", ["canary", "=canary", "A='canary", 'A="canary', "A='x' canary", "1A=canary"]
)
def test_bad_env_file(line: str) -> None:
    """A line that is none of these is an error that names the line alone."""
    with pytest.raises(solenoid.EnvironError) as caught:
        solenoid.parse_env_file(f"OK='two\nlines'\n\n{line}\nB=1\n", "conf.env")
    assert str(caught.value) == "conf.env, line 4: not NAME=value"


def test_either() -> None:
    """What begins with a brace is JSON: so does standard input take both."""
    assert solenoid.parse_environ(' {"A": 1}', "stdin") == {"A": "1"}
    assert solenoid.parse_environ("A=1\n", "stdin") == {"A": "1"}
    with pytest.raises(solenoid.EnvironError, match="stdin is not JSON"):
        solenoid.parse_environ("{A=1}", "stdin")
