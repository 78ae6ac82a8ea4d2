"""A body for every operation that takes one: shown in the OpenAPI description, and sent by a test as it stands.

They go together: what one makes, the next may name. The photos are those of `demo/photos`, served as the README says.
"""

from __future__ import annotations

from typing import Any

_PHOTOS = "http://127.0.0.1:9000"
_WORDS = {"vector_index": "multimodal", "type": "text", "value": "a cup of coffee"}
_CHEAP = {"AND": [{"key": "metadata.price", "operator": "lte", "value": 5}, {"key": "metadata.tags", "value": "hot"}]}

# One line of a body of lines.
LINES: dict[str, dict[str, Any]] = {
    "ImportStoredQueries": {
        "percolator_id": "7d5e8a4e-3c3b-4f0e-9d0a-6f3c1f6f2a11",
        "collection_ids": ["photos"],
        "queries": [_WORDS],
        "min_score": 0.4,
        "name": "hot drinks",
        "enabled": True,
    },
}
EXAMPLES: dict[str, dict[str, Any]] = {
    "CreateCollection": {"collection_name": "photos", "metadata": {"team": "search"}},
    "CreateStoredQuery": {
        "collection_ids": ["photos"],
        "queries": [_WORDS],
        "filters": {"key": "metadata.price", "operator": "lte", "value": 5},
        "min_score": 0.4,
        "name": "hot drinks",
        "metadata": {"owner": "ann"},
        "delivery": {"webhook_url": f"{_PHOTOS}/hook", "secret": "whsec_bGVuc21lc2ggZXhhbXBsZSBzZWNyZXQ="},
    },
    "IndexImage": {
        "url": f"{_PHOTOS}/coffee.jpg",
        "collection_id": "photos",
        "metadata": {"price": 4, "tags": ["hot", "drink"]},
        "percolate": {"min_score": 0.4, "max_candidates": 10},
        "skip_duplicate": False,
        "feature_extractors": {
            "read": {"vector_index": "keyword"},
            "describe": {"max_length": 200, "vector_index": "text"},
            "detect": {"faces": {}, "logos": {"confidence_threshold": 0.5}},
            "embed": [{"type": "url", "vector_index": "multimodal"}],
            "json_output": {"response_shape": {"objects": ["str"], "people": "int"}},
        },
    },
    "IndexText": {
        "collection_id": "photos",
        "metadata": {"kind": "review"},
        "feature_extractors": {
            "embed": [{"type": "text", "vector_index": "text", "value": "The best coffee in town."}]
        },
    },
    "IndexBatch": {
        "items": [
            {"url": f"{_PHOTOS}/cat.jpg", "collection_id": "photos"},
            {"url": f"{_PHOTOS}/rocket.jpg", "collection_id": "photos"},
        ]
    },
    "FindNearDuplicates": {"max_distance": 10, "limit": 5},
    "ListAssets": {
        "collection_ids": ["photos"],
        "filters": _CHEAP,
        "sort": {"field": "created_at", "direction": "desc"},
        "select": ["metadata.price", "url"],
        "return_url": True,
    },
    "SearchAssets": {"collection_ids": ["photos"], "query": {"key": ["*", "tags"], "value": "hot drink"}},
    "ReplaceAsset": {"metadata": {"price": 3, "tags": ["hot"]}, "propagate_features": True},
    "UpdateAsset": {"metadata": {"price": 2}},
    "SearchFeatures": {
        "queries": [_WORDS, {"vector_index": "keyword", "type": "text", "value": "espresso"}],
        "collection_ids": ["photos"],
        "filters": {"NOR": [{"key": "metadata.price", "operator": "gt", "value": 100}]},
        "group_by": {"field": "metadata.kind", "max_features": 3},
        "select": ["description", "score"],
    },
    "ListFeatures": {"collection_ids": ["photos"], "include_vectors": False},
    "EmbedFeature": {"type": "text", "vector_index": "keyword", "value": "a cup of coffee"},
    "UpdateFeature": {"metadata": {"checked": True}},
    "ReplaceStoredQuery": {"collection_ids": ["photos"], "queries": [_WORDS], "min_score": 0.5, "name": "coffee"},
    "UpdateStoredQuery": {"enabled": True},
    "DryRunStoredQuery": {"min_score": 0.4, "limit": 10},
    "Percolate": {"collection_id": "photos", "inputs": [_WORDS], "metadata": {"price": 4}},
    "RedeliverMatches": {"since": "2026-01-01T00:00:00Z"},
    "ListMatches": {"collection_ids": ["photos"], "since": "2026-01-01T00:00:00Z"},
    "CreateLogo": {"name": "Poster", "url": f"{_PHOTOS}/poster.png"},
    "CreateNamespace": {
        "namespace_name": "shop",
        "vector_indexes": ["multimodal", "image", "text", "keyword"],
        "payload_indexes": [{"field_name": "price", "type": "float"}],
    },
    "UpdateNamespace": {"limits": {"collections_max": 100}},
    "Reembed": {"vector_indexes": ["text"]},
    "UpdateCollection": {"collection_name": "pictures", "metadata": {"team": "shop"}},
    "CreateKey": {"permissions": ["read"]},
    "UpdateKey": {"permissions": ["read", "write"], "requests_per_minute": 600},
    "RotateKey": {},
}
