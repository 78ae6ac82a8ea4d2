"""What an index request asks for: which blocks are on, which steps follow from them, which defaults hold.

Gateway, vision and embedder read requests by these rules, so that they agree.
"""

from __future__ import annotations

from lensmesh.v1 import common_pb2, index_pb2, task_pb2

# A description's or a read text's vector goes under the index's own name.
DEFAULT_EMBED = index_pb2.Embed(type=index_pb2.EMBED_TYPE_URL, vector_index=common_pb2.VECTOR_INDEX_MULTIMODAL)


def on_duplicate(request: index_pb2.IndexImageRequest) -> index_pb2.OnDuplicate.ValueType:
    """What the request wants done with a file that the collection has already; UNSPECIFIED when it does not say."""
    if request.on_duplicate:
        return request.on_duplicate
    if request.HasField("skip_duplicate"):
        return index_pb2.ON_DUPLICATE_SKIP if request.skip_duplicate else index_pb2.ON_DUPLICATE_REINDEX
    return index_pb2.ON_DUPLICATE_UNSPECIFIED


def copied_note(asset_id: str) -> str:
    """What a step says that no model was asked for."""
    return f"copied from asset {asset_id}"


def is_on(holder: object, name: str) -> bool:
    """Whether a block is present and not switched off."""
    if not holder.HasField(name):  # type: ignore[attr-defined]
        return False
    block = getattr(holder, name)
    return not block.HasField("enabled") or bool(block.enabled)


def effective(request: index_pb2.IndexImageRequest) -> index_pb2.FeatureExtractors:
    """The extractors of a request; by default, the image itself goes into the multimodal index."""
    if request.HasField("feature_extractors"):
        return request.feature_extractors
    return index_pb2.FeatureExtractors(embed=[DEFAULT_EMBED])


def vision_steps(extractors: index_pb2.FeatureExtractors) -> list[str]:
    """The steps that vision takes after the fetch."""
    steps = [name for name in ("read", "describe") if is_on(extractors, name)]
    if extractors.HasField("detect"):
        steps += [name for name in ("faces", "logos") if is_on(extractors.detect, name)]
    if extractors.HasField("json_output"):
        steps.append("json_output")
    return steps


def faces_embedded(extractors: index_pb2.FeatureExtractors) -> bool:
    """Whether detected faces go into the index face."""
    return extractors.HasField("detect") and is_on(extractors.detect, "faces") and extractors.detect.faces.embed


def needs_embedding(extractors: index_pb2.FeatureExtractors) -> bool:
    """Whether anything is embedded."""
    texts = [block for name in ("read", "describe") if is_on(extractors, name) for block in [getattr(extractors, name)]]
    into_index = any(block.HasField("vector_index") for block in texts)
    return bool(extractors.embed) or into_index or faces_embedded(extractors)


def text_of(extractors: index_pb2.FeatureExtractors) -> str:
    """The text of an asset that is one: its different texts in order, joined by newlines."""
    return "\n".join(dict.fromkeys(embed.value for embed in extractors.embed))


def requested_steps(request: index_pb2.IndexImageRequest, *, is_text: bool = False) -> list[str]:
    """Every step of the task, in order."""
    extractors = effective(request)
    # A text is there already.
    steps = [*([] if is_text else ["fetch"]), *vision_steps(extractors)]
    if needs_embedding(extractors):
        steps.append("embed")
    steps.append("store")
    if is_on(request, "percolate"):
        steps.append("percolate")
    return steps


def done(ms: float, attempt: int, note: str | None = None) -> task_pb2.TaskStep:
    """A step that went well."""
    return task_pb2.TaskStep(state=task_pb2.STEP_STATE_DONE, ms=round(ms, 1), attempts=attempt, note=note)
