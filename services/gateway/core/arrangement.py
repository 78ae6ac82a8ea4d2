"""From sort and group_by, as requests give them, to what the embedder arranges by."""

from __future__ import annotations

from lensmesh.v1 import asset_pb2, common_pb2, embedder_pb2, feature_pb2

from services.mesh.errors import InvalidArgument

# Members of a group when the request does not say how many.
MEMBERS_DEFAULT = 10
# Of these every document has its own, so that nothing would be grouped.
_UNGROUPABLE = ("score", "created_at", "updated_at")


def arrangement(
    sort: common_pb2.Sort | None, group_by: feature_pb2.FeatureGrouping | asset_pb2.AssetGrouping | None
) -> embedder_pb2.Arrangement:
    """What is asked for.

    Raises:
        InvalidArgument: the results can't be grouped by that field.
    """
    made = embedder_pb2.Arrangement(sort=sort)
    if group_by is not None:
        if group_by.field in _UNGROUPABLE:
            raise InvalidArgument.field("group_by.field", f"can't be {group_by.field!r}", "group_by.field")
        made.group_field = group_by.field
        wanted = group_by.max_assets if isinstance(group_by, asset_pb2.AssetGrouping) else group_by.max_features
        made.group_members_max = wanted or MEMBERS_DEFAULT
        if group_by.HasField("sort"):
            made.group_sort.CopyFrom(group_by.sort)
    return made
