"""Listings of assets and features: what a filter selects, ordered, grouped, and a page of it.

Order and groups are `arrange`'s. Milvus neither sorts nor counts groups, so ids and what is sorted by are read here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.json_format import ParseDict
from lensmesh.v1 import asset_pb2, embedder_pb2, feature_pb2

from services.embedder import keywords, rows
from services.embedder.arrange import Entry, grouped, needs_fields, ordered
from services.embedder.store import Store
from services.mesh.errors import InvalidArgument
from services.mesh.filters import METADATA, compile, from_proto, matches
from services.mesh.filters.evaluate import words
from services.mesh.tenancy import Tenant

_KINDS = {embedder_pb2.DOCUMENT_KIND_ASSET: rows.ASSET, embedder_pb2.DOCUMENT_KIND_FEATURE: rows.FEATURE}


class Listing:
    """Lists what is stored."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def page(
        self, tenant: Tenant, request: embedder_pb2.ScanDocumentsRequest
    ) -> embedder_pb2.ScanDocumentsResponse:
        """A page of assets or features.

        Raises:
            InvalidArgument: more is selected than one listing may go through, or the cursor stands nowhere in it.
        """
        entries = await self._entries(tenant, request)
        arrangement = request.arrangement
        found = ordered(entries, arrangement.sort if arrangement.HasField("sort") else None)
        if arrangement.group_field:
            groups = grouped(found, arrangement)
            shown = groups[request.offset : request.offset + request.limit]
            answer = embedder_pb2.ScanDocumentsResponse(total=len(groups), offset=request.offset)
            members = [[each.id for each in group.members] for group in shown]
            documents = await self._documents(tenant, request, [each for ids in members for each in ids])
            for group, ids in zip(shown, members, strict=True):
                _add_group(answer, request, group.value, [documents[each] for each in ids if each in documents])
            return answer
        offset = _offset(found, request)
        page = found[offset : offset + request.limit]
        documents = await self._documents(tenant, request, [each.id for each in page])
        answer = embedder_pb2.ScanDocumentsResponse(total=len(found), offset=offset)
        for each in page:
            document = documents.get(each.id)
            if isinstance(document, asset_pb2.Asset):
                if request.HasField("words"):
                    document.score = each.score
                answer.assets.append(document)
            elif document is not None:
                answer.features.append(document)
        return answer

    async def _documents(
        self, tenant: Tenant, request: embedder_pb2.ScanDocumentsRequest, ids: list[str]
    ) -> Mapping[str, asset_pb2.Asset | feature_pb2.Feature]:
        if request.kind == embedder_pb2.DOCUMENT_KIND_ASSET:
            return await self._store.assets_by_id(tenant, ids)
        return await self._store.features_by_id(tenant, ids, include_vectors=request.include_vectors)

    async def _entries(self, tenant: Tenant, request: embedder_pb2.ScanDocumentsRequest) -> list[Entry]:
        """Everything that is selected, in its natural order: assets newest first, features oldest first."""
        condition = from_proto(request.filters)
        compiled = compile(condition, columns=rows.FILTER_COLUMNS[1:])
        searched = words(request.words.value) if request.HasField("words") else frozenset[str]()
        fields = ["created_at"]
        if not compiled.exact or request.HasField("words") or needs_fields(request.arrangement):
            fields += ["asset_id", "collection_id", "modality", "updated_at", METADATA]
        scope = rows.among("collection_id", request.collection_ids) if request.collection_ids else ""
        expression = rows.every((scope, compiled.expression))
        found = await self._store.selected(tenant, _KINDS[request.kind], expression, fields)
        newest_first = request.kind == embedder_pb2.DOCUMENT_KIND_ASSET
        # By id among those of one moment; the sort is stable in reverse, too.
        found.sort(key=lambda row: row["id"])
        found.sort(key=lambda row: row["created_at"], reverse=newest_first)
        entries = []
        for row in found:
            named = row if newest_first else row | {"feature_id": row["id"]}
            if not compiled.exact and not matches(condition, named):
                continue
            score = _share(searched, request.words.key, row[METADATA]) if searched else 0.0
            if score or not searched:
                entries.append(Entry(row["id"], named, score))
        return sorted(entries, key=lambda each: -each.score) if searched else entries


def _offset(found: list[Entry], request: embedder_pb2.ScanDocumentsRequest) -> int:
    if not request.after_id:
        return request.offset
    for position, each in enumerate(found):
        if each.id == request.after_id:
            return position + 1
    raise InvalidArgument.field("offset_feature_id", "is no feature of this listing (any more)", "cursor")


def _share(searched: frozenset[str], keys: Any, metadata: Any) -> float:
    """Which share of the searched words stands in the chosen texts of the metadata."""
    there = words(" ".join(text for key in keys for text in _texts(metadata, key)))
    return len(searched & there) / len(searched)


def _texts(metadata: Any, key: str) -> list[str]:
    if key == "**":
        return [keywords.words_of(metadata)]
    if key == "*":
        return [each for each in metadata.values() if isinstance(each, str)]
    value: Any = metadata
    for name in key.removeprefix(f"{METADATA}.").split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    if isinstance(value, list):
        return [str(each) for each in value]
    return [] if value is None else [str(value)]


def _add_group(
    answer: embedder_pb2.ScanDocumentsResponse, request: embedder_pb2.ScanDocumentsRequest, value: Any, members: Any
) -> None:
    if request.kind == embedder_pb2.DOCUMENT_KIND_ASSET:
        group = answer.asset_groups.add(field=request.arrangement.group_field, assets=members)
    else:
        group = answer.feature_groups.add(field=request.arrangement.group_field, features=members)  # type: ignore[assignment]
    ParseDict(value, group.value)
