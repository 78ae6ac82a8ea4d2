"""The OpenAPI 3.1 description, made of the same contracts as the routes: paths, fields, comments and rules.

Nothing is described by hand here; what a field means stands in its proto.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from importlib import resources
from typing import Any

from buf.validate import validate_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from services.gateway.core.calls import Operation
from services.gateway.rest.examples import EXAMPLES, LINES
from services.gateway.rest.multipart import FILE_PART, head_descriptor
from services.gateway.rest.ndjson import MEDIA_TYPE
from services.gateway.rest.routes import Binding, bindings
from services.mesh.json_names import answers_lines, enum_names, json_aliases, json_name, takes_lines

_F = FieldDescriptor
_WELL_KNOWN: dict[str, dict[str, Any]] = {
    "google.protobuf.Struct": {"type": "object", "additionalProperties": True},
    "google.protobuf.Value": {},
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "lensmesh.v1.Vector": {
        "anyOf": [{"type": "array", "items": {"type": "number"}}, {"$ref": "#/components/schemas/SparseVector"}]
    },
    "lensmesh.v1.Embedding": {
        "anyOf": [
            {
                "type": "object",
                "properties": {"vector": {"type": "array", "items": {"type": "number"}}},
                "required": ["vector"],
            },
            {"$ref": "#/components/schemas/SparseVector"},
        ]
    },
}
_SPARSE_VECTOR = {
    "type": "object",
    "properties": {
        "indices": {"type": "array", "items": {"type": "integer"}},
        "values": {"type": "array", "items": {"type": "number"}},
    },
    "required": ["indices", "values"],
}
_SCALARS: dict[int, dict[str, Any]] = {
    _F.TYPE_STRING: {"type": "string"},
    _F.TYPE_BOOL: {"type": "boolean"},
    _F.TYPE_DOUBLE: {"type": "number"},
    _F.TYPE_FLOAT: {"type": "number"},
    _F.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
}
_FILE_PART = {
    "type": "object",
    "properties": {FILE_PART: {"type": "string", "format": "binary", "description": "The file, with a filename."}},
    "required": [FILE_PART],
}
_ONCE = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The same key with the same request gets the same answer for a day, and nothing is done twice.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}
_ERRORS = {
    "400": "The request can't be read.",
    "401": "No key, or one that is unknown, disabled or expired.",
    "403": "The key may not do this.",
    "404": "Not there, in this namespace.",
    "409": "Exists already, or is being carried out.",
    "413": "Too large.",
    "422": "One or more fields break a rule.",
    "429": "Too many requests of this key, or tasks waiting; see Retry-After.",
    "500": "A fault of the server.",
    "503": "Something needed does not answer; see Retry-After.",
}


def describe(operations: tuple[Operation, ...], version: str) -> dict[str, Any]:
    """The description of all operations."""
    schemas: dict[str, Any] = {"Error": _error_schema(), "SparseVector": _SPARSE_VECTOR}
    paths: dict[str, Any] = {}
    for operation in operations:
        for number, binding in enumerate(bindings(operation)):
            entry = _operation(binding, schemas)
            if number:
                entry["operationId"] += f"Alias{number}"
                entry["deprecated"] = True
            paths.setdefault(binding.path, {})[binding.method.lower()] = entry
    _link(paths, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "lensmesh",
            "version": version,
            "summary": "Makes images findable, and percolates them against stored queries.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": dict(sorted(schemas.items())),
        },
    }


def _operation(binding: Binding, schemas: dict[str, Any]) -> dict[str, Any]:
    method = binding.operation.method
    inner = head_descriptor(method) if method.client_streaming else method.input_type
    in_path = re.findall(r"{(\w+)}", binding.path)
    parameters: list[dict[str, Any]] = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": _field(inner.fields_by_name[name], schemas),
        }
        for name in in_path
    ]
    parameters.append(
        {
            "name": "X-Namespace",
            "in": "header",
            "required": False,
            "description": "The namespace, by name or id; the key's own when absent.",
            "schema": {"type": "string"},
        }
    )
    if binding.operation.replayable:
        parameters.append(_ONCE)
    pages = {"page", "page_size", "offset_position", "offset_feature_id"}
    for field in inner.fields:
        wanted = field.name in pages if binding.body == "*" else binding.body != field.name
        if wanted and field.name not in in_path and field.type != _F.TYPE_MESSAGE and not field.is_repeated:
            schema = _field(field, schemas)
            parameters.append({"name": json_name(field), "in": "query", "required": False, "schema": schema})
    entry: dict[str, Any] = {
        "operationId": method.name,
        "tags": [method.containing_service.name.removesuffix("Service")],
        "summary": _comments().get(method.full_name, method.name),
        "parameters": parameters,
        "responses": {"200": {"description": _done(method), "content": _answer(binding, schemas)}},
    }
    for status, text in _ERRORS.items():
        content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
        entry["responses"][status] = {"description": text, "content": content}
    if takes_lines(method):
        schema = _reference(inner, schemas, request=True)
        line = {"schema": schema, "example": LINES[method.name]}
        entry["requestBody"] = {
            "required": True,
            "description": "One such object a line.",
            "content": {MEDIA_TYPE: line},
        }
    elif method.client_streaming:
        form = {"allOf": [_reference(inner, schemas, request=True), _FILE_PART]}
        schemas[inner.name].pop("additionalProperties", None)
        entry["requestBody"] = {"required": True, "content": {"multipart/form-data": {"schema": form}}}
    elif binding.body == "*":
        schema = _reference(inner, schemas, request=True)
        _leave_out(schemas[inner.name], in_path)
        content = {"schema": schema, "example": EXAMPLES[method.name]}
        entry["requestBody"] = {"required": True, "content": {"application/json": content}}
    elif binding.body:
        raw = {"schema": {"type": "string", "format": "binary"}}
        entry["requestBody"] = {"required": True, "content": {"application/octet-stream": raw}}
    return entry


def _link(paths: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Say which operations take an id that another one's answer has, at its top or in its first result."""
    entries = [entry for item in paths.values() for entry in item.values() if not entry.get("deprecated")]
    # What was deleted can't be asked for again.
    givers = [entry for entry in entries if not entry["operationId"].startswith("Delete")]
    takers: dict[str, list[str]] = {}
    for entry in entries:
        for parameter in entry["parameters"]:
            if parameter["in"] == "path":
                takers.setdefault(parameter["name"], []).append(entry["operationId"])
    for entry in givers:
        content = entry["responses"]["200"]["content"].get("application/json", {})
        links = {}
        for name, pointer in _ids(content.get("schema", {}), schemas):
            # /collections/{collection} takes a name or an id, and so do namespaces.
            for parameter in (name, name.removesuffix("_id")):
                for taker in takers.get(parameter, ()):
                    expression = f"$response.body#{pointer}"
                    links[taker] = {"operationId": taker, "parameters": {parameter: expression}}
        if links:
            entry["responses"]["200"]["links"] = links


def _ids(schema: dict[str, Any], schemas: dict[str, Any], pointer: str = "") -> Iterator[tuple[str, str]]:
    """The ids that an answer has, with their JSON pointers."""
    # A field of an answer may be null, so that it is one of two.
    reference = next((each["$ref"] for each in (schema, *schema.get("anyOf", ())) if "$ref" in each), "")
    properties = schemas.get(reference.rpartition("/")[2], {}).get("properties", {})
    for name, inner in properties.items():
        if name.endswith("_id"):
            yield name, f"{pointer}/{name}"
        elif name == "results":
            items = inner["items"]
            yield from _ids(items, schemas, f"{pointer}/{name}/0")


def _leave_out(schema: dict[str, Any], names: list[str]) -> None:
    """Take fields that stand in the path out of the body's schema."""
    for name in names:
        schema["properties"].pop(name, None)
    required = [each for each in schema.pop("required", []) if each not in names]
    schema |= {"required": required} if required else {}


def _answer(binding: Binding, schemas: dict[str, Any]) -> dict[str, Any]:
    output = binding.operation.method.output_type
    if binding.response_body:
        schema = _field(output.fields_by_name[binding.response_body], schemas)
    else:
        schema = _reference(output, schemas)
    method = binding.operation.method
    streamed = MEDIA_TYPE if answers_lines(method) else "text/event-stream"
    return {streamed if method.server_streaming else "application/json": {"schema": schema}}


def _done(method: MethodDescriptor) -> str:
    if answers_lines(method):
        return "One such object a line, without the fields that are not set. A stream that broke has no proper end."
    return "An event each, as they come." if method.server_streaming else "Done."


def _reference(message: Descriptor, schemas: dict[str, Any], *, request: bool = False) -> dict[str, Any]:
    if message.full_name in _WELL_KNOWN:
        return dict(_WELL_KNOWN[message.full_name])
    if message.name not in schemas:
        schemas[message.name] = {}
        properties, required = {}, []
        for field in message.fields:
            schema = _field(field, schemas)
            properties[json_name(field)] = schema
            for alias in json_aliases(field):
                properties[alias] = {"description": f"Another name of {json_name(field)}.", "deprecated": True} | {
                    key: value for key, value in schema.items() if key != "description"
                }
            # A field that has aliases can't be required by its one name.
            if _rules(field).required and not json_aliases(field):
                required.append(json_name(field))
        if "groups" in properties:
            # In JSON the groups stand in the place of the results.
            group = {"type": "object", "description": properties.pop("groups")["description"]}
            properties["results"]["items"] = {"anyOf": [properties["results"]["items"], group]}
        schema = {"type": "object", "properties": properties, "description": _comments().get(message.full_name, "")}
        if request or required:
            schema["additionalProperties"] = False
        schemas[message.name] = schema | ({"required": required} if required else {})
    return {"$ref": f"#/components/schemas/{message.name}"}


def _field(field: FieldDescriptor, schemas: dict[str, Any]) -> dict[str, Any]:
    rules = _rules(field)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        value = _one(field.message_type.fields_by_name["value"], schemas, validate_pb2.FieldRules())
        schema: dict[str, Any] = {"type": "object", "additionalProperties": value}
    elif field.is_repeated:
        schema = {"type": "array", "items": _one(field, schemas, rules.repeated.items)}
        if rules.repeated.HasField("min_items"):
            schema["minItems"] = rules.repeated.min_items
        if rules.repeated.HasField("max_items"):
            schema["maxItems"] = rules.repeated.max_items
    else:
        schema = _one(field, schemas, rules)
        if field.has_presence and not rules.required:
            schema = {"anyOf": [schema, {"type": "null"}]}
    return schema | {"description": _comments().get(field.full_name, "")}


def _one(field: FieldDescriptor, schemas: dict[str, Any], rules: validate_pb2.FieldRules) -> dict[str, Any]:
    if field.message_type is not None:
        return _reference(field.message_type, schemas)
    if field.type == _F.TYPE_ENUM:
        return {"type": "string", "enum": list(enum_names(field.enum_type).values())}
    if field.type not in _SCALARS:
        return {"type": "integer"} | _bounds(rules.int32)
    schema = dict(_SCALARS[field.type])
    if field.type == _F.TYPE_DOUBLE:
        schema |= _bounds(rules.double)
    if field.type == _F.TYPE_STRING:
        text = rules.string
        schema |= {"maxLength": text.max_len} if text.HasField("max_len") else {}
        schema |= {"minLength": text.min_len} if text.HasField("min_len") else {}
        schema |= {"pattern": text.pattern} if text.HasField("pattern") else {}
        schema |= {"enum": list(getattr(text, "in"))} if getattr(text, "in") else {}
    return schema


def _bounds(rules: Any) -> dict[str, Any]:
    bounds = {}
    if rules.HasField("gte"):
        bounds["minimum"] = rules.gte
    if rules.HasField("lte"):
        bounds["maximum"] = rules.lte
    return bounds


def _rules(field: FieldDescriptor) -> validate_pb2.FieldRules:
    return field.GetOptions().Extensions[validate_pb2.field]


def _error_schema() -> dict[str, Any]:
    # With items, as generators of clients refuse a list of whatever.
    place = {"type": "array", "items": {"type": ["string", "integer"]}}
    detail = {"type": "object", "properties": {"loc": place, "msg": {"type": "string"}}}
    error = {
        "type": "object",
        "properties": {
            "message": {"type": "string"},
            "type": {"type": "string"},
            "details": {"type": ["object", "null"]},
        },
    }
    return {
        "type": "object",
        "properties": {
            "success": {"const": False},
            "status": {"type": "integer"},
            "error": error,
            "detail": {"type": "array", "items": detail},
        },
        "required": ["success", "status", "error", "detail"],
    }


@functools.cache
def _comments() -> dict[str, str]:
    """The leading comment of every message, field and method of the contracts."""
    comments: dict[str, str] = {}
    image = resources.files("lensmesh.v1").joinpath("contracts.binpb").read_bytes()
    for file in FileDescriptorSet.FromString(image).file:
        if file.package != "lensmesh.v1":
            continue
        for location in file.source_code_info.location:
            name = _name_at(file, list(location.path))
            if name and location.leading_comments:
                comments[f"{file.package}.{name}"] = " ".join(location.leading_comments.split())
    return comments


def _name_at(file: Any, path: list[int]) -> str | None:
    """The name of a message (4), its field (2), or a service's (6) method (2), by its path in the file."""
    if len(path) not in (2, 4) or path[0] not in (4, 6) or (len(path) == 4 and path[2] != 2):
        return None
    outer = (file.message_type if path[0] == 4 else file.service)[path[1]]
    if len(path) == 2:
        return str(outer.name)
    inner = (outer.field if path[0] == 4 else outer.method)[path[3]]
    return f"{outer.name}.{inner.name}"
