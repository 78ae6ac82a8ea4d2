"""`lensmesh COMMAND`: the commands for people."""

from __future__ import annotations

import argparse
import sys

from cli import reembed
from cli.connection import NoMesh, find


def main() -> int:
    """Run one command; returns its exit code. 2: wrong arguments or no mesh."""
    parser = argparse.ArgumentParser(prog="lensmesh", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser(
        "reembed", help="embed a namespace anew with the models in use", description=reembed.__doc__
    )
    one.add_argument("--namespace", default="", help="name or id; default: the key's own")
    one.add_argument("--json", action="store_true", help="one JSON object a line, for machines")
    reembed.add_arguments(one)
    given = parser.parse_args()
    try:
        return reembed.run(find(given.namespace), given)
    except NoMesh as error:
        print(f"lensmesh: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
