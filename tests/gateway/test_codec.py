"""Messages as JSON: times against protobuf's own writing of them, fields that are not set, vectors."""

from __future__ import annotations

import math

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st
from lensmesh.v1 import feature_pb2

from services.gateway.rest.codec import decode
from services.mesh.errors import InvalidArgument
from services.mesh.json_encoding import encode
from services.mesh.json_names import json_name


@given(st.integers(-(10**9), 10**11), st.sampled_from([1, 1_000, 1_000_000, 10**9]), st.integers(0, 999_999_999))
def test_times_are_written_as_protobuf_writes_them(seconds: int, unit: int, nanos: int) -> None:
    """Any time of the years 1938 to 5138, with seconds, milli-, micro- and nanoseconds."""
    stamp = Timestamp(seconds=seconds, nanos=nanos // unit * unit)
    assert stamp.ToJsonString() == encode(stamp)


def test_fields_that_are_not_set_are_there() -> None:
    """Every field has its place: lists and maps are empty, optional ones null, texts empty."""
    shown = encode(feature_pb2.Feature())
    assert [json_name(field) for field in feature_pb2.Feature.DESCRIPTOR.fields] == list(shown)
    unset = {name: shown[name] for name in ("feature_id", "score", "lines", "metadata", "text", "created_at", "detect")}
    expected = {"feature_id": "", "score": None, "lines": [], "metadata": {}, "text": None, "created_at": None}
    assert expected | {"detect": None} == unset


def test_what_is_set_is_no_other_messages() -> None:
    """A message's values are not those that stand for fields that another one has not set."""
    full = feature_pb2.Feature(feature_id="f", text="t")
    full.vectors.add(field_name="image")
    full.metadata.update({"n": 1, "of": {"list": [None, True, 0.5, "x"]}})
    assert {"n": 1, "of": {"list": [None, True, 0.5, "x"]}} == encode(full)["metadata"]
    assert ["image"] == [each["field_name"] for each in encode(full)["vector_info"]]
    empty = encode(feature_pb2.Feature())
    assert ({}, [], None) == (empty["metadata"], empty["vector_info"], empty["text"])


@given(st.lists(st.floats() | st.integers(-5, 5) | st.just(1e308)))
def test_vectors_are_finite_numbers(vector: list[float]) -> None:
    """Whole numbers are numbers too; what is not finite is refused, each with its place."""
    query = feature_pb2.SearchQuery()
    wrong = [place for place, each in enumerate(vector) if not math.isfinite(each)]
    if wrong:
        with pytest.raises(InvalidArgument) as refused:
            decode({"vector": vector}, query)
        assert [("body", "vector", place) for place in wrong] == [each.path for each in refused.value.violations]
    else:
        decode({"vector": vector}, query)
        assert len(vector) == len(query.vector)
