"""Writes the typed REST calls of the Python client from the contracts: what goes in, what comes out, a method each.

Runs in a process of its own, after the stubs it reads were made. How calls travel, the client package knows.
"""

from __future__ import annotations

import keyword
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from buf.validate import validate_pb2
from google.api import annotations_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from services.mesh.json_names import answers_lines, enum_names, json_name, takes_lines

_F = FieldDescriptor
_SCALARS = {
    _F.TYPE_STRING: "str",
    _F.TYPE_BOOL: "bool",
    _F.TYPE_DOUBLE: "float",
    _F.TYPE_FLOAT: "float",
    _F.TYPE_BYTES: "str",
}
_WELL_KNOWN = {
    "google.protobuf.Struct": "dict[str, Any]",
    "google.protobuf.Value": "Any",
    # RFC 3339.
    "google.protobuf.Timestamp": "str",
}
# What has a shape of its own in JSON, as the REST door's codec writes it.
_VECTORS = {
    "lensmesh.v1.Vector": "list[float] | SparseVector",
    "lensmesh.v1.Embedding": "DenseEmbedding | SparseVector",
}
_VECTOR_TYPES = '''
class SparseVector(TypedDict):
    """Weights of terms."""

    indices: list[int]
    values: list[float]


class DenseEmbedding(TypedDict):
    """A dense vector on its own."""

    vector: list[float]
'''
# What an answer may lack without the field being declared optional; null in JSON.
_MAY_LACK = {
    "lensmesh.v1.DeliveryStatus.delivered_at",
    "lensmesh.v1.Filter.operator",
    "lensmesh.v1.Namespace.limits",
    "lensmesh.v1.StoredQuery.expires_at",
    "lensmesh.v1.StoredQueryStats.last_match_at",
}
# Their answers hold a secret, so the mesh keeps none to replay: they take no Idempotency-Key.
_NEVER_REPLAYED = {"CreateKey", "RotateKey"}
# What the calls' modules import, blocking and asynchronous.
_ITERABLES = {False: "Iterable, Iterator", True: "AsyncIterable, AsyncIterator, Iterable"}
_HEAD = '"""{what} Made by protos/rest_client.py; changes here are lost."""\n\nfrom __future__ import annotations\n\n'


@dataclass(frozen=True, slots=True)
class _Parameter:
    """One argument of a method: its name in JSON, and its type in Python."""

    name: str
    kind: str
    required: bool
    comment: str


def services(stubs: Path) -> list[ServiceDescriptor]:
    """The public services among the stubs in a folder: those whose methods have HTTP annotations."""
    names = sorted(path.stem for path in stubs.glob("*_pb2.py"))
    modules = [import_module(f"lensmesh.v1.{name}") for name in names]
    found = [each for module in modules for each in module.DESCRIPTOR.services_by_name.values()]
    return [each for each in found if any(_rule(method) for method in each.methods)]


def attribute(service: ServiceDescriptor) -> str:
    """What a client calls a service: tasks, matches, index."""
    name = _snake(service.name.removesuffix("Service"))
    return name if name == "index" else f"{name}es" if name.endswith("ch") else f"{name}s"


def write(target: Path) -> None:
    """Write the modules into target/lensmesh/rest and target/lensmesh/rpc.py."""
    folder = target / "lensmesh" / "rest"
    folder.mkdir()
    stubs = target / "lensmesh" / "v1"
    public, comments = services(stubs), _comments(stubs / "contracts.binpb")
    (folder / "__init__.py").write_text('"""The REST API, typed. Made by protos/rest_client.py."""\n')
    (folder / "inputs.py").write_text(_types(_reachable(public, inputs=True), comments, inputs=True))
    (folder / "outputs.py").write_text(_types(_reachable(public, inputs=False), comments, inputs=False))
    for name, asynchronous in (("blocking", False), ("asynchronous", True)):
        (folder / f"{name}.py").write_text(_calls(public, comments, asynchronous=asynchronous))
    (target / "lensmesh" / "rpc.py").write_text(_stubs(public))
    for package in (folder.parent, folder):
        (package / "py.typed").touch()


def _rule(method: MethodDescriptor) -> str:
    """The HTTP method of an rpc in lower case; empty: it has no annotation."""
    return method.GetOptions().Extensions[annotations_pb2.http].WhichOneof("pattern") or ""


def _request(method: MethodDescriptor) -> Descriptor:
    """The message that a request's fields are of; of an upload, its head."""
    if not method.client_streaming:
        return method.input_type
    return next(field.message_type for field in method.input_type.fields if field.message_type)


def _reachable(public: Iterable[ServiceDescriptor], *, inputs: bool) -> list[Descriptor]:
    """The messages that requests hold, or that answers are or hold."""
    methods = [method for service in public for method in service.methods]
    roots = [method.output_type for method in methods]
    if inputs:
        roots = [field.message_type for method in methods for field in _request(method).fields if field.message_type]
        roots += [_request(method) for method in methods if takes_lines(method)]
    found: dict[str, Descriptor] = {}

    def visit(message: Descriptor) -> None:
        plain = message.full_name in _WELL_KNOWN or message.full_name in _VECTORS
        if message.full_name in found or plain:
            return
        if not message.GetOptions().map_entry:
            found[message.full_name] = message
        for field in message.fields:
            if field.message_type:
                visit(field.message_type)

    for root in roots:
        visit(root)
    return sorted(found.values(), key=lambda each: each.name)


def _types(messages: Iterable[Descriptor], comments: dict[str, str], *, inputs: bool) -> str:
    """One TypedDict a message."""
    what = "What requests hold." if inputs else "What answers hold: every key is always there."
    names = "Any, Literal, Required, TypedDict" if inputs else "Any, Literal, TypedDict"
    parts = [_HEAD.format(what=what) + f"from typing import {names}\n\n{_VECTOR_TYPES}"]
    for message in messages:
        lines = [f"class {message.name}(TypedDict{', total=False' if inputs else ''}):"]
        lines += [*_quoted(comments.get(message.full_name, message.name), "    "), ""]
        # Groups stand under `results` in JSON.
        fields = [field for field in message.fields if inputs or field.name != "groups"]
        for field in fields:
            kind = _kind(field, nullable=not inputs)
            if inputs and _required(field):
                kind = f"Required[{kind}]"
            lines += [f"    {json_name(field)}: {kind}", *_quoted(comments.get(field.full_name, ""), "    ")]
        parts.append("\n".join(lines + ([] if fields else ["    pass"])))
    return "\n\n".join(parts) + "\n"


def _calls(public: Iterable[ServiceDescriptor], comments: dict[str, str], *, asynchronous: bool) -> str:
    """One class a service, one method an rpc, and a class that has them all."""
    door = "AsyncDoor" if asynchronous else "Door"
    what = f"The API's calls, {'to be awaited' if asynchronous else 'blocking'}."
    parts = [
        _HEAD.format(what=what)
        + f"from collections.abc import {_ITERABLES[asynchronous]}, Sequence\nfrom pathlib import Path\n"
        + "from typing import Any, Literal\n\n"
        + f"from lensmesh_client.door import {door}, segment\n\nfrom lensmesh.rest import inputs, outputs\n"
    ]
    for service in public:
        lines = [f"class {service.name.removesuffix('Service')}Calls:"]
        lines += _quoted(comments.get(service.full_name, service.name), "    ")
        lines += ["", f"    def __init__(self, door: {door}) -> None:", "        self._door = door"]
        for method in service.methods:
            lines += ["", *_method(method, comments, asynchronous=asynchronous)]
        parts.append("\n".join(lines))
    lines = ["class Calls:", '    """All of them."""', "", f"    def __init__(self, door: {door}) -> None:"]
    for service in public:
        lines.append(f"        self.{attribute(service)} = {service.name.removesuffix('Service')}Calls(door)")
    return "\n\n\n".join([*parts, "\n".join(lines)]) + "\n"


def _method(method: MethodDescriptor, comments: dict[str, str], *, asynchronous: bool) -> Iterator[str]:
    rule = method.GetOptions().Extensions[annotations_pb2.http]
    verb, path = _rule(method), getattr(rule, _rule(method))
    in_path = re.findall(r"{(\w+)}", path)
    parameters = sorted(
        _parameters(method, rule.body, in_path, comments, asynchronous=asynchronous), key=lambda each: not each.required
    )
    result = _result(method, rule.response_body)
    waits = "async " if asynchronous and not method.server_streaming else ""
    if method.server_streaming:
        result = f"{'AsyncIterator' if asynchronous else 'Iterator'}[{result}]"
    yield f"    {waits}def {_snake(method.name)}("
    yield "        self,"
    if parameters:
        yield "        *,"
    for each in parameters:
        yield f"        {each.name}: {each.kind}{'' if each.required else ' | None = None'},"
    yield f"    ) -> {result}:"
    text = comments.get(method.full_name, method.name)
    if parameters:
        text += "\n\nArgs:\n" + "\n".join(f"    {each.name}: {each.comment}" for each in parameters)
    yield from _quoted(text, "        ")
    for name in in_path:
        path = path.replace(f"{{{name}}}", f"{{segment({name})}}")
    names = [each.name for each in parameters if each.name not in (*in_path, "file", rule.body)]
    values = "{" + ", ".join(f'"{name}": {name}' for name in names) + "}"
    arguments = [f'"{verb.upper()}"', f'{"f" if in_path else ""}"{path}"']
    arguments.append(f"body={values}" if rule.body == "*" else f"query={values}")
    if rule.body not in ("", "*"):
        arguments.append(f"content={rule.body}")
    if takes_lines(method):
        yield f"        return self._door.exchange({', '.join(arguments[:2])}, lines=lines)"
        return
    if method.server_streaming:
        stream = "lines" if answers_lines(method) else "events"
        yield f"        return self._door.{stream}({', '.join(arguments)})"
        return
    if method.client_streaming:
        arguments.append("file=file")
    arguments.append(f"keyed={verb != 'get' and method.name not in _NEVER_REPLAYED}")
    awaited = "await " if asynchronous else ""
    yield f"        answer: {result} = {awaited}self._door.call({', '.join(arguments)})"
    yield "        return answer"


def _parameters(
    method: MethodDescriptor, body: str, in_path: list[str], comments: dict[str, str], *, asynchronous: bool
) -> Iterator[_Parameter]:
    if takes_lines(method):
        one = f"inputs.{_request(method).name}"
        kind = f"AsyncIterable[{one}] | Iterable[{one}] | Path" if asynchronous else f"Iterable[{one}] | Path"
        yield _Parameter("lines", kind, True, "One each, or a file of them, one JSON object a line.")
        return
    for field in _request(method).fields:
        comment = comments.get(field.full_name, "")
        if field.name == body:
            yield _Parameter(field.name, "bytes", True, comment)
        else:
            kind = _kind(field, nullable=False, prefix="inputs.")
            yield _Parameter(json_name(field), kind, field.name in in_path or _required(field), comment)
    if method.client_streaming:
        yield _Parameter("file", "bytes | Path", True, "The file: its bytes, or where it is.")


def _result(method: MethodDescriptor, response_body: str) -> str:
    if answers_lines(method):
        # What is not set is left out, as requests may.
        return _kind(method.output_type.fields_by_name[response_body], nullable=False, prefix="inputs.")
    if response_body:
        return _kind(method.output_type.fields_by_name[response_body], nullable=False, prefix="outputs.")
    return f"outputs.{method.output_type.name}"


def _kind(field: FieldDescriptor, *, nullable: bool, prefix: str = "") -> str:
    """A field's type. Nullable: as an answer has it, with None where nothing was set."""
    sequence = "Sequence" if prefix == "inputs." else "list"
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return f"dict[str, {_one(field.message_type.fields_by_name['value'], prefix)}]"
    if field.is_repeated:
        return f"{sequence}[{_one(field, prefix)}]"
    lacking = (field.has_presence and field.containing_oneof) or field.full_name in _MAY_LACK
    return _one(field, prefix) + (" | None" if nullable and lacking else "")


def _one(field: FieldDescriptor, prefix: str) -> str:
    if field.message_type is not None:
        name = str(field.message_type.full_name)
        return _WELL_KNOWN.get(name) or _VECTORS.get(name) or prefix + str(field.message_type.name)
    if field.type == _F.TYPE_ENUM:
        return f"Literal[{', '.join(repr(name) for name in enum_names(field.enum_type).values())}]"
    return _SCALARS.get(field.type, "int")


def _required(field: FieldDescriptor) -> bool:
    rules = field.GetOptions().Extensions[validate_pb2.field]
    return bool(rules.required or rules.repeated.min_items)


def _stubs(public: Iterable[ServiceDescriptor]) -> str:
    """The gRPC stubs of all services in one place, for both kinds of channels."""
    lines = [_HEAD.format(what="The public services over gRPC.") + "import grpc"]
    public = list(public)
    for service in public:
        module = service.file.name.removesuffix(".proto").replace("/", ".")
        lines.append(f"from {module}_pb2_grpc import {service.name}Stub")
    for name, channel in (("Stubs", "grpc.Channel"), ("AsyncStubs", "grpc.aio.Channel")):
        lines += ["", "", f"class {name}:", '    """A stub of each service."""', ""]
        lines.append(f"    def __init__(self, channel: {channel}) -> None:")
        lines += [f"        self.{attribute(service)} = {service.name}Stub(channel)" for service in public]
    methods = [method for service in public for method in service.methods]
    writes = [method for method in methods if _rule(method) != "get" and not method.server_streaming]
    paths = {each.name: f"/{each.containing_service.full_name}/{each.name}" for each in writes}
    keyed = sorted(path for name, path in paths.items() if name not in _NEVER_REPLAYED)
    once = sorted(path for name, path in paths.items() if name in _NEVER_REPLAYED)
    lines += ["", "", "# Methods that take an Idempotency-Key.", f"KEYED = frozenset({keyed!r})"]
    lines += ["# Methods that must not be called again when nobody answered.", f"ONCE = frozenset({once!r})"]
    return "\n".join(lines) + "\n"


def _snake(name: str) -> str:
    snake = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
    return f"{snake}_" if keyword.iskeyword(snake) else snake


def _quoted(text: str, indent: str) -> list[str]:
    """A docstring."""
    if not text:
        return []
    escaped = text.replace("\\", "\\\\").replace('"""', "'''")
    wrapped: list[str] = []
    for line in escaped.split("\n"):
        margin = line[: len(line) - len(line.lstrip())]
        wrapped += textwrap.wrap(line, 120 - len(indent), subsequent_indent=f"{margin}  ") or [""]
    if len(wrapped) == 1 and not wrapped[0].endswith('"') and len(wrapped[0]) < 105:
        return [f'{indent}"""{wrapped[0]}"""']
    return [f'{indent}"""{wrapped[0]}', *(f"{indent}{line}".rstrip() for line in wrapped[1:]), f'{indent}"""']


def _comments(image: Path) -> dict[str, str]:
    """The leading comment of every message, field, service and method."""
    comments: dict[str, str] = {}
    for file in FileDescriptorSet.FromString(image.read_bytes()).file:
        for location in file.source_code_info.location:
            path = list(location.path)
            if len(path) not in (2, 4) or path[0] not in (4, 6) or (len(path) == 4 and path[2] != 2):
                continue
            outer = (file.message_type if path[0] == 4 else file.service)[path[1]]
            name = f"{file.package}.{outer.name}"
            if len(path) == 4:
                name += f".{(outer.field if path[0] == 4 else outer.method)[path[3]].name}"  # type: ignore[union-attr]
            comments[name] = " ".join(location.leading_comments.split())
    return comments


if __name__ == "__main__":
    write(Path(sys.argv[1]))
