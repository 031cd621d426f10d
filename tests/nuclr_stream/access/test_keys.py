"""Key files and the allow-list: made by the command, read back whole, and never half understood."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import zmq.utils.z85
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from nuclr_stream.access.allow_list import FILE, Rights, WatchedAllowList, read_allowed, write_allowed
from nuclr_stream.access.keys import KEY_ENV, KeyPair, client_key
from nuclr_stream.commands.cli import app
from nuclr_stream.errors import AccessError


def run(*arguments: str) -> dict[str, object]:
    """What the last line of `nuclr-stream keys` says; errors on purpose are raised."""
    done = CliRunner().invoke(app, ["keys", *arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    document: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return document


def test_keys_are_made_allowed_listed_and_revoked(tmp_path: Path) -> None:
    folder = ["--keys", str(tmp_path / "keys")]
    daemon = run("new", *folder)
    rig = run("new", "rig1", *folder)
    pair = KeyPair.read(Path(str(rig["path"])))
    assert (pair.daemon, pair.public) == (daemon["public"], rig["public"])
    assert Path(str(rig["path"])).stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700

    run("allow", "rig1", "--publish", "rig1-*", "--query", *folder)
    elsewhere = KeyPair.new("desk", daemon=pair.daemon)
    run("allow", "desk", "--public", elsewhere.public, "--read", *folder)
    allowed = read_allowed(tmp_path / "keys")
    assert allowed[pair.public] == Rights("rig1", pair.public, ("rig1-*",), read=False, query=True)
    assert allowed[elsewhere.public] == Rights("desk", elsewhere.public, (), read=True)

    run("allow", "rig1", "--read", *folder)
    assert read_allowed(tmp_path / "keys")[pair.public].publish == (), "what was allowed before is replaced"
    assert run("revoke", "rig1", *folder) == {"name": "rig1", "allowed": 1}
    assert run("list", *folder)["allowed"] == [
        {"name": "desk", "public": elsewhere.public, "publish": [], "read": True, "query": False}
    ]


def test_what_cannot_be_meant_is_rejected_with_a_remedy(tmp_path: Path) -> None:
    folder = ["--keys", str(tmp_path)]
    with pytest.raises(AccessError, match=r"daemon\.key.*keys new makes"):
        run("new", "rig1", *folder)
    run("new", *folder)
    run("new", "rig1", *folder)
    with pytest.raises(AccessError, match="there is a key already"):
        run("new", "rig1", *folder)
    with pytest.raises(AccessError, match="cannot name a key"):
        run("new", "../rig", *folder)
    with pytest.raises(AccessError, match="allow it something"):
        run("allow", "rig1", *folder)
    with pytest.raises(AccessError, match="40 characters of Z85"):
        run("allow", "rig2", "--public", "x" * 40 + "\N{MICRO SIGN}", "--read", *folder)
    run("allow", "rig1", "--read", *folder)
    with pytest.raises(AccessError, match="rig1 has this key"):
        run("allow", "twin", "--public", KeyPair.read(tmp_path / "rig1.key").public, "--read", *folder)
    with pytest.raises(AccessError, match=r"no key 'rig9' is allowed \(allowed: rig1\)"):
        run("revoke", "rig9", *folder)


def test_a_secret_that_others_may_read_is_not_used(tmp_path: Path) -> None:
    path = KeyPair.new("rig", daemon=KeyPair.new("daemon").public).write(tmp_path)
    path.chmod(0o640)
    with pytest.raises(AccessError, match="chmod 600"):
        KeyPair.read(path)


def test_a_client_takes_the_key_it_is_given_else_that_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = KeyPair.new("daemon")
    rig, desk = (KeyPair.new(name, daemon=daemon.public) for name in ("rig", "desk"))
    assert client_key(None) is None
    monkeypatch.setenv(KEY_ENV, str(desk.write(tmp_path)))
    assert client_key(None) == desk
    assert client_key(rig.write(tmp_path)) == rig
    with pytest.raises(AccessError, match="no client's key"):
        client_key(daemon.write(tmp_path))


@pytest.mark.parametrize(
    "change",
    [
        {"secret": zmq.utils.z85.encode(bytes(range(32))).decode()},
        {"public": "short"},
        {"public": 5},
        {"secret": "~" * 40},
        {"name": "a/b"},
        {"daemon": "x"},
        {"daemon": None},
    ],
    ids=str,
)
def test_a_key_file_that_is_not_whole_is_rejected(tmp_path: Path, change: dict[str, object]) -> None:
    path = KeyPair.new("rig").write(tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(AccessError, match=r"rig\.key|cannot name a key"):
        KeyPair.read(path)


PUBLIC = KeyPair.new("rig").public
ENTRY = {"name": "rig", "public": PUBLIC, "publish": ["a"], "read": True, "query": False}
junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(PUBLIC),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*ENTRY, "allowed", "x"]), inner),
    max_leaves=8,
)


@given(
    content=st.binary(max_size=200)
    | junk.map(lambda value: json.dumps(value).encode())
    | junk.map(lambda value: json.dumps({"allowed": value}).encode())
    | st.dictionaries(st.sampled_from([*ENTRY, "x"]), junk, max_size=3).map(
        lambda change: json.dumps({"allowed": [ENTRY | change]}).encode()
    )
    | st.just(b"[" * 10_000)
)
@settings(max_examples=60)
def test_any_other_file_is_an_error_and_nothing_else(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.getbasetemp() / "junk"
    folder.mkdir(exist_ok=True)
    for name in (FILE, "rig.key"):
        (folder / name).write_bytes(content)
        (folder / name).chmod(0o600)
    try:
        allowed = read_allowed(folder)
    except AccessError:
        pass
    else:
        assert all(type(rights.read) is bool and key == rights.public for key, rights in allowed.items())
    with pytest.raises(AccessError):
        KeyPair.read(folder / "rig.key")


def test_a_change_of_the_list_is_seen_with_whose_rights_it_changes(tmp_path: Path) -> None:
    rig, desk = (Rights(name, KeyPair.new(name).public, read=True) for name in ("rig", "desk"))
    both = {one.public: one for one in (rig, desk)}
    write_allowed(tmp_path, both)
    watched = WatchedAllowList(tmp_path)
    assert (watched.current, watched.refresh()) == (both, set())
    write_allowed(tmp_path, {rig.public: rig})
    assert watched.refresh() == {desk.public}
    write_allowed(tmp_path, both | {rig.public: Rights("rig", rig.public, query=True)})
    assert watched.refresh() == {rig.public}, "whose rights are others must ask anew"


@pytest.mark.parametrize("content", [b"", b'{"allowed": [{}]}', None], ids=["empty", "half", "gone"])
def test_a_list_that_goes_bad_allows_nobody(tmp_path: Path, content: bytes | None) -> None:
    rig = Rights("rig", PUBLIC, read=True)
    write_allowed(tmp_path, {rig.public: rig})
    watched = WatchedAllowList(tmp_path)
    if content is None:
        (tmp_path / FILE).unlink()
    else:
        (tmp_path / FILE).write_bytes(content)
    assert watched.refresh() == {rig.public}
    assert watched.current == {}
    assert ("no valid allow-list" in watched.problem) == (content is not None)


def test_a_pattern_covers_the_streams_that_it_names() -> None:
    rights = Rights("rig", PUBLIC, ("probeA", "rig1-*"))
    assert [rights.may_publish(name) for name in ("probeA", "rig1-x", "probeAB", "rig2-x", "")] == [
        *(True, True),
        *(False, False, False),
    ]
    assert (rights.may("data"), rights.may("results"), rights.may("query")) == (True, False, False)
    assert os.environ.get(KEY_ENV) is None, "tests must not depend on a key of whoever runs them"
