"""Requests that break a rule, in JSON and as messages, with the field and the words that the refusal names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf import struct_pb2
from google.protobuf.message import Message
from lensmesh.v1 import asset_pb2, feature_pb2, index_pb2, logo_pb2, match_pb2, namespace_pb2, percolator_pb2

URL = "http://127.0.0.1:1/x.jpg"
GOOD = {"url": URL, "collection_id": "c"}
INDEX, SEARCH, STORE = "/index/images/url", "/features/search", "/percolators/queries"
NEAR, LOGOS = "/assets/a/near-duplicates", "/logos"
RPC_METHODS = {
    INDEX: "IndexImage",
    SEARCH: "SearchFeatures",
    STORE: "CreateStoredQuery",
    "/percolators/matches": "ListMatches",
    "/namespaces": "CreateNamespace",
    "/collections": "CreateCollection",
    NEAR: "FindNearDuplicates",
    LOGOS: "CreateLogo",
}
QUERY = {"vector_index": "multimodal", "type": "text", "value": "x"}
PROTO_QUERY = {"vector_index": 2, "type": 1, "value": "x"}
NO_FILE = "0" * 64


def index(**changes: Any) -> index_pb2.IndexImageRequest:
    """A good index request with changes."""
    return index_pb2.IndexImageRequest(**(GOOD | changes))


def extract(**blocks: Any) -> index_pb2.IndexImageRequest:
    """An index request with these extractors."""
    return index(feature_extractors=index_pb2.FeatureExtractors(**blocks))


def search(**changes: Any) -> feature_pb2.SearchFeaturesRequest:
    """A search with changes."""
    return feature_pb2.SearchFeaturesRequest(**({"queries": [PROTO_QUERY], "collection_ids": ["c"]} | changes))


def near(**fields: Any) -> asset_pb2.FindNearDuplicatesRequest:
    """A search for near-duplicates."""
    return asset_pb2.FindNearDuplicatesRequest(asset_id="a", **fields)


def logo(**fields: Any) -> logo_pb2.CreateLogoRequest:
    """A logo to be stored."""
    return logo_pb2.CreateLogoRequest(**fields)


def struct(**fields: Any) -> struct_pb2.Struct:
    """A Struct."""
    made = struct_pb2.Struct()
    made.update(fields)
    return made


def leaf(**parts: Any) -> dict[str, Any]:
    """A search body with one filter leaf."""
    return {"queries": [QUERY], "collection_ids": ["c"], "filters": parts}


@dataclass(frozen=True)
class Case:
    """A bad request: its path and body, the same as a message where gRPC can say it, and what is refused."""

    path: str
    body: Any
    message: Callable[[], Message] | None
    field: str
    says: str


EMBED = "feature_extractors.embed.0"
CASES = {
    "no url": Case(INDEX, {"collection_id": "c"}, lambda: index(url=""), "url", "is required"),
    "ftp url": Case(INDEX, GOOD | {"url": "ftp://h/x"}, lambda: index(url="ftp://h/x"), "url", "http:// or https://"),
    "no host": Case(INDEX, GOOD | {"url": "http://"}, lambda: index(url="http://"), "url", "http:// or https://"),
    "no ipv6 host": Case(
        INDEX, GOOD | {"url": "http://[::1/x"}, lambda: index(url="http://[::1/x"), "url", "not a URL"
    ),
    "port": Case(INDEX, GOOD | {"url": "http://h:99999/x"}, lambda: index(url="http://h:99999/x"), "url", "0-65535"),
    "no collection": Case(INDEX, {"url": URL}, lambda: index(collection_id=""), "collection_id", "is required"),
    "blank collection": Case(
        INDEX, GOOD | {"collection_id": " "}, lambda: index(collection_id=" "), "collection_id", "must not be blank"
    ),
    "min_score over 1": Case(
        INDEX,
        GOOD | {"percolate": {"min_score": 1.5}},
        lambda: index(percolate={"min_score": 1.5}),
        "percolate.min_score",
        "less than or equal to 1",
    ),
    "min_score not a number": Case(
        INDEX,
        GOOD | {"percolate": {"min_score": "high"}},
        lambda: index(percolate={"min_score": float("nan")}),
        "percolate.min_score",
        "must be",
    ),
    "no candidates": Case(
        INDEX,
        GOOD | {"percolate": {"max_candidates": 0}},
        lambda: index(percolate={"max_candidates": 0}),
        "percolate.max_candidates",
        "greater than or equal to 1",
    ),
    "unknown index": Case(
        INDEX,
        GOOD | {"feature_extractors": {"embed": [{"type": "url", "vector_index": "pixels"}]}},
        lambda: extract(embed=[{"type": 1, "vector_index": 9}]),
        f"{EMBED}.vector_index",
        "must be one of",
    ),
    "no index": Case(
        INDEX,
        GOOD | {"feature_extractors": {"embed": [{"type": "url"}]}},
        lambda: extract(embed=[{"type": 1}]),
        f"{EMBED}.vector_index",
        "is required",
    ),
    "no mode": Case(
        INDEX,
        GOOD | {"asset_update": {"asset_id": "a"}},
        lambda: index(asset_update={"asset_id": "a"}),
        "asset_update.mode",
        "is required",
    ),
    "text into the image index": Case(
        INDEX,
        GOOD | {"feature_extractors": {"embed": [{"type": "text", "value": "a", "vector_index": "image"}]}},
        lambda: extract(embed=[{"type": 2, "value": "a", "vector_index": 1}]),
        EMBED,
        "the image index takes images",
    ),
    "image into the text index": Case(
        INDEX,
        GOOD | {"feature_extractors": {"embed": [{"type": "url", "vector_index": "text"}]}},
        lambda: extract(embed=[{"type": 1, "vector_index": 3}]),
        EMBED,
        "text and keyword take texts",
    ),
    "no text": Case(
        INDEX,
        GOOD | {"feature_extractors": {"embed": [{"type": "text", "vector_index": "text"}]}},
        lambda: extract(embed=[{"type": 2, "vector_index": 3}]),
        EMBED,
        "value is required",
    ),
    "bad base64": Case(
        INDEX,
        GOOD | {"feature_extractors": {"embed": [{"type": "base64", "value": "%", "vector_index": "image"}]}},
        lambda: extract(embed=[{"type": 4, "value": "%", "vector_index": 1}]),
        f"{EMBED}.value",
        "neither base64 nor",
    ),
    "unknown file": Case(
        INDEX,
        GOOD | {"feature_extractors": {"embed": [{"type": "file", "value": NO_FILE, "vector_index": "image"}]}},
        lambda: extract(embed=[{"type": 3, "value": NO_FILE, "vector_index": 1}]),
        f"{EMBED}.value",
        "uploaded file",
    ),
    "a path as a file": Case(
        INDEX,
        GOOD | {"feature_extractors": {"embed": [{"type": "file", "value": "/etc/hosts", "vector_index": "image"}]}},
        lambda: extract(embed=[{"type": 3, "value": "/etc/hosts", "vector_index": 1}]),
        f"{EMBED}.value",
        "uploaded",
    ),
    "embed of an ftp url": Case(
        INDEX,
        GOOD | {"feature_extractors": {"embed": [{"type": "url", "value": "ftp://x", "vector_index": "image"}]}},
        lambda: extract(embed=[{"type": 1, "value": "ftp://x", "vector_index": 1}]),
        f"{EMBED}.value",
        "http:// or",
    ),
    "field name with a blank": Case(
        INDEX,
        GOOD | {"feature_extractors": {"embed": [{"type": "url", "vector_index": "image", "field_name": "a b"}]}},
        lambda: extract(embed=[{"type": 1, "vector_index": 1, "field_name": "a b"}]),
        f"{EMBED}.field_name",
        "match",
    ),
    "long text": Case(
        INDEX,
        GOOD | {"feature_extractors": {"embed": [{"type": "text", "value": "a" * 32_001, "vector_index": "text"}]}},
        lambda: extract(embed=[{"type": 2, "value": "a" * 32_001, "vector_index": 3}]),
        f"{EMBED}.value",
        "32001 characters; at most 32000",
    ),
    "threshold over 1": Case(
        INDEX,
        GOOD | {"feature_extractors": {"detect": {"faces": {"confidence_threshold": 2}}}},
        lambda: extract(detect={"faces": {"confidence_threshold": 2}}),
        "feature_extractors.detect.faces.confidence_threshold",
        "less than or equal to 1",
    ),
    "no length": Case(
        INDEX,
        GOOD | {"feature_extractors": {"describe": {"max_length": 0}}},
        lambda: extract(describe={"max_length": 0}),
        "feature_extractors.describe.max_length",
        "greater than or equal",
    ),
    "shape of a wrong type": Case(
        INDEX,
        GOOD | {"feature_extractors": {"json_output": {"response_shape": {"a": "date"}}}},
        lambda: extract(json_output={"response_shape": struct(a="date")}),
        "feature_extractors.json_output.response_shape.a",
        "must be one of str, int, float, bool",
    ),
    "shape of a number": Case(
        INDEX,
        GOOD | {"feature_extractors": {"read": {"json_output": {"a": [1]}}}},
        lambda: extract(read={"json_output": struct(a=[1])}),
        "feature_extractors.read.json_output.a.0",
        "must be one of",
    ),
    "no shape": Case(
        INDEX,
        GOOD | {"feature_extractors": {"json_output": {}}},
        lambda: extract(json_output={}),
        "feature_extractors.json_output.response_shape",
        "is required",
    ),
    "oversized metadata": Case(
        INDEX,
        GOOD | {"metadata": {"a": "x" * 60_001}},
        lambda: index(metadata=struct(a="x" * 60_001)),
        "metadata",
        "at most 60000",
    ),
    "oversized metadata of a stored query": Case(
        STORE,
        {"collection_ids": ["c"], "queries": [QUERY], "metadata": {"a": "x" * 60_001}},
        lambda: percolator_pb2.CreateStoredQueryRequest(
            collection_ids=["c"], queries=[PROTO_QUERY], metadata=struct(a="x" * 60_001)
        ),
        "metadata",
        "at most 60000",
    ),
    "oversized metadata of a collection": Case(
        "/collections",
        {"collection_name": "large", "metadata": {"a": "x" * 2_000_000}},
        lambda: namespace_pb2.CreateCollectionRequest(collection_name="large", metadata=struct(a="x" * 60_001)),
        "metadata",
        "at most 60000",
    ),
    "metadata not finite": Case(
        INDEX,
        GOOD | {"metadata": [1]},
        lambda: index(metadata=struct(a=float("nan"))),
        "metadata",
        "must be",
    ),
    "stored metadata not finite": Case(
        STORE,
        {"collection_ids": ["c"], "queries": [QUERY], "metadata": "x"},
        lambda: percolator_pb2.CreateStoredQueryRequest(
            collection_ids=["c"], queries=[PROTO_QUERY], metadata=struct(a=[float("inf")])
        ),
        "metadata",
        "must be",
    ),
    "on_duplicate against skip_duplicate": Case(
        INDEX,
        GOOD | {"skip_duplicate": True, "on_duplicate": "copy_features"},
        lambda: index(skip_duplicate=True, on_duplicate=2),
        "on_duplicate",
        "'copy_features' contradicts skip_duplicate true",
    ),
    "skip_duplicate against on_duplicate": Case(
        INDEX,
        GOOD | {"prevent_duplicate": False, "on_duplicate": "skip"},
        lambda: index(skip_duplicate=False, on_duplicate=1),
        "skip_duplicate",
        "false contradicts on_duplicate 'skip'",
    ),
    "unknown on_duplicate": Case(
        INDEX, GOOD | {"on_duplicate": "merge"}, lambda: index(on_duplicate=9), "on_duplicate", "must be one of"
    ),
    "negative distance": Case(
        NEAR, {"max_distance": -1}, lambda: near(max_distance=-1), "max_distance", "greater than or equal to 0"
    ),
    "distance over 32": Case(
        NEAR, {"max_distance": 33}, lambda: near(max_distance=33), "max_distance", "less than or equal to 32"
    ),
    "near-duplicates none": Case(NEAR, {"limit": 0}, lambda: near(limit=0), "limit", "greater than or equal to 1"),
    "near-duplicates over 100": Case(
        NEAR, {"limit": 101}, lambda: near(limit=101), "limit", "less than or equal to 100"
    ),
    "near-duplicates in a collection without a name": Case(
        NEAR, {"collection_ids": [""]}, lambda: near(collection_ids=[""]), "collection_ids.0", "at least 1"
    ),
    "no queries": Case(STORE, {"collection_ids": ["c"]}, None, "queries", "at least 1"),
    "no collections": Case(
        SEARCH, {"queries": [QUERY]}, lambda: search(collection_ids=[]), "collection_ids", "at least 1"
    ),
    "six queries": Case(
        SEARCH,
        {"queries": [QUERY] * 6, "collection_ids": ["c"]},
        lambda: search(queries=[PROTO_QUERY] * 6),
        "queries",
        "no more than 5",
    ),
    "page of 101": Case(
        SEARCH,
        {"queries": [QUERY], "collection_ids": ["c"], "page_size": 101},
        lambda: search(page_size=101),
        "page_size",
        "less than or equal to 100",
    ),
    "matches page of 101": Case(
        "/percolators/matches",
        {"collection_ids": ["c"], "page_size": 101},
        lambda: match_pb2.ListMatchesRequest(collection_ids=["c"], page_size=101),
        "page_size",
        "equal to 100",
    ),
    "vector of no type": Case(
        SEARCH,
        {"queries": [QUERY | {"vector": [1]}], "collection_ids": ["c"]},
        lambda: search(queries=[PROTO_QUERY | {"vector": [1]}]),
        "queries.0",
        "vector is required for the type vector",
    ),
    "stored vector of a wrong size": Case(
        STORE,
        {"collection_ids": ["c"], "queries": [{"vector_index": "image", "type": "vector", "vector": [1, 2]}]},
        lambda: percolator_pb2.CreateStoredQueryRequest(
            collection_ids=["c"], queries=[{"vector_index": 1, "type": 4, "vector": [1, 2]}]
        ),
        "queries.0.vector",
        "has 2 dimensions; the index has 64",
    ),
    "name of a namespace": Case(
        "/namespaces",
        {"namespace_name": "a.b", "vector_indexes": ["image"]},
        lambda: namespace_pb2.CreateNamespaceRequest(namespace_name="a.b", vector_indexes=[1]),
        "namespace_name",
        "match",
    ),
    "logo without a name": Case(LOGOS, {"url": URL}, lambda: logo(url=URL), "name", "is required"),
    "blank logo": Case(LOGOS, {"name": " ", "url": URL}, lambda: logo(name=" ", url=URL), "name", "must not be blank"),
    "long logo": Case(
        LOGOS, {"name": "a" * 129, "url": URL}, lambda: logo(name="a" * 129, url=URL), "name", "128 characters"
    ),
    "logo without an image": Case(LOGOS, {"name": "a"}, lambda: logo(name="a"), "image", "is required"),
    "logo of two images": Case(
        LOGOS,
        {"name": "a", "url": URL, "file_id": NO_FILE},
        lambda: logo(name="a", url=URL, file_id=NO_FILE),
        "file_id",
        "exactly one of image, url, file_id",
    ),
    "logo of an ftp url": Case(
        LOGOS, {"name": "a", "url": "ftp://x"}, lambda: logo(name="a", url="ftp://x"), "url", "http:// or https://"
    ),
    "logo of no base64": Case(
        LOGOS, {"name": "a", "image": "%"}, lambda: logo(name="a", image="%"), "image", "neither base64 nor"
    ),
    "logo of an unknown file": Case(
        LOGOS,
        {"name": "a", "file_id": NO_FILE},
        lambda: logo(name="a", file_id=NO_FILE),
        "file_id",
        "uploaded file",
    ),
}

JSON_ONLY = {
    "unknown field": (INDEX, GOOD | {"metadatas": {}}, "metadatas", "is not a field here; did you mean 'metadata'?"),
    "unknown inner field": (
        INDEX,
        GOOD | {"percolate": {"minscore": 1}},
        "percolate.minscore",
        "did you mean 'min_score'?",
    ),
    "alias conflict": (INDEX, GOOD | {"collection": "d"}, "collection", "another name of 'collection_id'"),
    "alias conflict inside": (
        INDEX,
        GOOD | {"percolate": {"min_score": 0.1, "min_relevance": 0.2}},
        "percolate.min_relevance",
        "another name of 'min_score'",
    ),
    "url of a wrong type": (INDEX, GOOD | {"url": 3}, "url", "must be a string, not a number"),
    "percolate of a wrong type": (INDEX, GOOD | {"percolate": True}, "percolate", "must be an object, not a boolean"),
    "boolean of a wrong type": (INDEX, GOOD | {"skip_duplicate": "yes"}, "skip_duplicate", "must be a boolean"),
    "embed of a wrong type": (
        INDEX,
        GOOD | {"feature_extractors": {"embed": {}}},
        "feature_extractors.embed",
        "must be a list, not an object",
    ),
    "integer of a wrong type": (
        INDEX,
        GOOD | {"percolate": {"max_candidates": 1.5}},
        "percolate.max_candidates",
        "must be an integer",
    ),
    "unknown mode": (
        INDEX,
        GOOD | {"asset_update": {"asset_id": "a", "mode": "merge"}},
        "asset_update.mode",
        "must be one of 'replace', 'append'",
    ),
}
