"""`lensmesh reembed`: embeds a namespace anew with the models in use, with progress.

Exit codes: 0 all indexes are searched by the models in use, 1 an index was not switched, 3 the mesh refused or is gone.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

import grpc
from google.protobuf.json_format import MessageToDict
from lensmesh.v1 import common_pb2
from lensmesh.v1 import namespace_pb2 as api
from lensmesh.v1.namespace_pb2_grpc import NamespaceServiceStub

from cli.connection import Connection

_INDEXES = {name.removeprefix("VECTOR_INDEX_").lower(): number for name, number in common_pb2.VectorIndex.items()}
# Seconds between two lines where the output is no terminal.
_LINE_S = 5.0
# What the same call may not meet again.
_PASSING = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
_PHASES = {
    api.REEMBED_PHASE_FEATURES: "embedding assets",
    api.REEMBED_PHASE_STORED_QUERIES: "embedding stored queries",
    api.REEMBED_PHASE_SWITCHED: "switched",
    api.REEMBED_PHASE_UNCHANGED: "is of the model in use already",
    api.REEMBED_PHASE_NOT_SWITCHED: "NOT switched",
}
_ENDS = (api.REEMBED_PHASE_SWITCHED, api.REEMBED_PHASE_UNCHANGED, api.REEMBED_PHASE_NOT_SWITCHED)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument(
        "--index", action="append", default=[], choices=[name for name, number in _INDEXES.items() if number],
        help="only this index; may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "--accept-failures", action="store_true", help="switch even when some vectors can't be made: they are lost"
    )


def run(connection: Connection, given: argparse.Namespace) -> int:
    """Embed anew; returns the exit code."""
    request = api.ReembedRequest(vector_indexes=[_INDEXES[name] for name in given.index])
    if given.accept_failures:
        request.accept_failures = True
    ended: dict[int, api.ReembedProgress] = {}
    show = _Shown(as_json=given.json)
    with connection.channel() as channel:
        try:
            for answer in NamespaceServiceStub(channel).Reembed(request, metadata=connection.metadata):
                show(answer.progress)
                if answer.progress.phase in _ENDS:
                    ended[answer.progress.vector_index] = answer.progress
        except grpc.RpcError as error:
            # What was made is kept: the same command goes on from there.
            hint = "; run it again to go on" if error.code() in _PASSING else ""
            print(f"lensmesh: {error.details()} ({error.code().name}){hint}", file=sys.stderr)
            return 3
    return int(any(each.phase == api.REEMBED_PHASE_NOT_SWITCHED for each in ended.values()))


class _Shown:
    """Prints progress: in place on a terminal, else a line now and then; as JSON, every message."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._in_place = sys.stdout.isatty() and not as_json
        self._printed_at = 0.0
        self._phase: tuple[int, int] = (0, 0)

    def __call__(self, progress: api.ReembedProgress) -> None:
        if self._as_json:
            print(json.dumps(_plain(progress)), flush=True)
            return
        ends = progress.phase in _ENDS
        phase = (progress.vector_index, progress.phase)
        due = ends or phase != self._phase or time.monotonic() - self._printed_at >= _LINE_S
        if self._in_place:
            print(f"\r\033[K{_line(progress)}", end="\n" if ends else "", flush=True)
        elif due:
            print(_line(progress), flush=True)
            self._printed_at = time.monotonic()
        self._phase = phase
        if ends and progress.failed:
            print(f"  {progress.failed} could not be made, the last: {progress.last_error}", flush=True)


def _line(progress: api.ReembedProgress) -> str:
    name = next(name for name, number in _INDEXES.items() if number == progress.vector_index)
    text = f"{name}: {_PHASES[progress.phase]}"
    if progress.phase == api.REEMBED_PHASE_UNCHANGED:
        return f"{text} ({progress.to_version})"
    if progress.phase not in _ENDS:
        text += f" {progress.share:4.0%}"
    counts = f"{progress.made} made, {progress.present} there already, {progress.failed} failed"
    return f"{text}, {progress.from_version} -> {progress.to_version}: {counts}"


def _plain(progress: api.ReembedProgress) -> dict[str, object]:
    shown = MessageToDict(progress, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    shown["vector_index"] = shown["vector_index"].removeprefix("VECTOR_INDEX_").lower()
    shown["phase"] = shown["phase"].removeprefix("REEMBED_PHASE_").lower()
    return shown | {name: int(shown[name]) for name in ("made", "present", "failed")}
