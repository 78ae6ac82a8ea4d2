"""`lensmesh keys`: who may call the mesh."""

from __future__ import annotations

from typing import Literal

import click
from lensmesh.rest import outputs

from cli import exits
from cli.session import Session, mesh_command

_Permissions = tuple[Literal["read", "write", "admin"], ...]


@click.group("keys")
def keys_group() -> None:
    """API keys. All of it needs a key with the permission admin."""


@keys_group.command("list")
@click.argument("email", required=False)
@mesh_command
def list_(session: Session, email: str | None) -> int:
    """List the keys of a user, or of all; never the keys themselves."""
    if email is None:
        users = session.client.organizations.get_organization()["users"]
    else:
        users = [session.client.organizations.get_user(email=email)]
    keys = [key for user in users for key in user["api_keys"]]
    if session.as_json:
        session.document({"results": keys})
        return exits.DONE
    rows = [
        (
            key["email"],
            key["name"],
            f"{key['prefix']}…",
            ", ".join(key["permissions"]),
            ", ".join(key["namespaces"]),
            "disabled" if key["disabled"] else key["expires_at"],
        )
        for key in keys
    ]
    session.table(["email", "name", "key", "permissions", "namespaces", "until"], rows)
    return exits.DONE


@keys_group.command("create")
@click.argument("email")
@click.option("--name", help='Default: "default".')
@click.option(
    "--for", "namespaces", metavar="NAMESPACE", multiple=True, help="That it may use; default: the one in use."
)
@click.option("--permission", "permissions", type=click.Choice(["read", "write", "admin"]), multiple=True)
@click.option("--expires-at", help="RFC 3339, such as 2030-01-31T00:00:00Z.")
@click.option("--requests-per-minute", type=click.IntRange(1))
@mesh_command
def create(
    session: Session,
    email: str,
    name: str | None,
    namespaces: tuple[str, ...],
    permissions: _Permissions,
    expires_at: str | None,
    requests_per_minute: int | None,
) -> int:
    """Make a key; it is shown once."""
    made = session.client.keys.create_key(
        email=email,
        key_name=name,
        namespaces=list(namespaces) or None,
        permissions=list(permissions) or None,
        expires_at=expires_at,
        requests_per_minute=requests_per_minute,
    )
    _secret(session, made["key"], made)
    return exits.DONE


@keys_group.command("rotate")
@click.argument("email")
@click.argument("name")
@mesh_command
def rotate(session: Session, email: str, name: str) -> int:
    """Give a key a new secret, shown once; the old one stops at once."""
    made = session.client.keys.rotate_key(email=email, key_name=name)
    _secret(session, made["key"] or "", made)
    return exits.DONE


@keys_group.command("rm")
@click.argument("email")
@click.argument("name")
@mesh_command
def remove(session: Session, email: str, name: str) -> int:
    """Delete a key; it stops at once."""
    deleted = session.client.keys.delete_key(email=email, key_name=name)
    if session.as_json:
        session.document(deleted)
    else:
        click.echo(f"deleted {name}")
    return exits.DONE


def _secret(session: Session, key: str, document: outputs.ApiKey | outputs.CreateKeyResponse) -> None:
    if session.as_json:
        session.document(document)
    else:
        click.echo(key)
        click.echo("keep it: it is shown now and never again", err=True)
