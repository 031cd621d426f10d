"""`nuclr-stream keys`: who may reach a daemon over the network. A running daemon takes changes up within a second."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nuclr_stream.access.allow_list import MAX_KEYS, MAX_PATTERNS, Rights, read_allowed, write_allowed
from nuclr_stream.access.keys import DAEMON, KeyPair, checked_key, checked_name
from nuclr_stream.commands.output import print_json
from nuclr_stream.errors import AccessError

KEYS = Path("~/.config/nuclr-stream/keys")

Folder = Annotated[Path, typer.Option("--keys", help="Folder of the daemon's key and its allow-list.")]
Name = Annotated[str, typer.Argument(help="Name of the key, such as rig1.")]

keys = typer.Typer(
    help="Who may reach a daemon over the network: make, allow, revoke and list keys.", no_args_is_help=True
)


@keys.command()
def new(
    name: Annotated[str, typer.Argument(help="Name of the key; left out: the daemon's own.")] = DAEMON,
    folder: Folder = KEYS,
    daemon: Annotated[str, typer.Option(help="Public key of the daemon that a client's key is for.")] = "",
) -> None:
    """Make a key pair, FOLDER/NAME.key: the daemon's own without a name, a client's with one.

    Make a client's key where the client runs, with --daemon, so that its secret never travels; or here, and carry the
    file over. Then allow its public key here.
    """
    folder = folder.expanduser()
    if name == DAEMON and daemon:
        raise AccessError("--daemon belongs to a client's key: name it too, as in keys new rig1 --daemon KEY")
    if name != DAEMON and not daemon:
        daemon = KeyPair.read(folder / f"{DAEMON}.key").public
    pair = KeyPair.new(name, daemon=daemon)
    path = pair.write(folder)
    print(f"made {path}; its public key is {pair.public}")
    print_json({"name": name, "path": str(path), "public": pair.public})


@keys.command()
def allow(
    name: Name,
    folder: Folder = KEYS,
    public: Annotated[str, typer.Option(help="Its public key, if its file is not in the folder.")] = "",
    publish: Annotated[
        list[str] | None, typer.Option(help="Stream that it may push data to, or a pattern such as rig1-*; repeatable.")
    ] = None,
    read: Annotated[bool, typer.Option("--read", help="It may receive what is published.")] = False,
    query: Annotated[bool, typer.Option("--query", help="It may ask for snapshots, embeddings and status.")] = False,
) -> None:
    """Allow a key exactly what is named here, in the place of what it was allowed before."""
    folder = folder.expanduser()
    checked_name(name)
    public = checked_key(public or KeyPair.read(folder / f"{name}.key").public, "--public")
    rights = Rights(name, public, tuple(publish or ()), read=read, query=query)
    if not (rights.publish or read or query):
        raise AccessError(f"{name}: allow it something: --publish STREAM, --read or --query; or keys revoke {name}")
    if len(rights.publish) > MAX_PATTERNS:
        raise AccessError(f"{name}: {len(rights.publish)} patterns of streams, at most {MAX_PATTERNS}")
    others = {key: one for key, one in read_allowed(folder).items() if one.name != name}
    if public in others:
        raise AccessError(f"{name}: {others[public].name} has this key; revoke it first, or make another key")
    if len(others) >= MAX_KEYS:
        raise AccessError(f"{folder}: {MAX_KEYS} keys are allowed already; revoke those that are not used")
    write_allowed(folder, others | {public: rights})
    print(_line(rights))
    print_json(_entry(rights))


@keys.command()
def revoke(name: Name, folder: Folder = KEYS) -> None:
    """Allow a key nothing any more: its connections end within a second, and it gets no new ones."""
    folder = folder.expanduser()
    allowed = read_allowed(folder)
    left = {public: rights for public, rights in allowed.items() if rights.name != name}
    if len(left) == len(allowed):
        known = ", ".join(rights.name for rights in allowed.values()) or "none"
        raise AccessError(f"{folder}: no key {name!r} is allowed (allowed: {known})")
    write_allowed(folder, left)
    print(f"{name} is revoked; its file, if it is here, may be removed")
    print_json({"name": name, "allowed": len(left)})


@keys.command("list")
def list_keys(folder: Folder = KEYS) -> None:
    """Show the daemon's public key and what each key is allowed."""
    folder = folder.expanduser()
    daemon = KeyPair.read(folder / f"{DAEMON}.key")
    allowed = list(read_allowed(folder).values())
    print(f"{DAEMON}  {daemon.public}")
    for rights in allowed:
        print(_line(rights))
    print_json({"daemon": daemon.public, "allowed": [_entry(rights) for rights in allowed]})


def _line(rights: Rights) -> str:
    may = [f"publish {', '.join(rights.publish)}"] if rights.publish else []
    may += [word for word, given in (("read", rights.read), ("query", rights.query)) if given]
    return f"{rights.name}  {rights.public}  may {'; '.join(may)}"


def _entry(rights: Rights) -> dict[str, object]:
    return {
        "name": rights.name,
        "public": rights.public,
        "publish": list(rights.publish),
        "read": rights.read,
        "query": rights.query,
    }
