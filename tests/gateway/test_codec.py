"""Times as JSON, against protobuf's own writing of them."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from services.mesh.json_encoding import encode


@given(st.integers(-(10**9), 10**11), st.sampled_from([1, 1_000, 1_000_000, 10**9]), st.integers(0, 999_999_999))
def test_times_are_written_as_protobuf_writes_them(seconds: int, unit: int, nanos: int) -> None:
    """Any time of the years 1938 to 5138, with seconds, milli-, micro- and nanoseconds."""
    stamp = Timestamp(seconds=seconds, nanos=nanos // unit * unit)
    assert stamp.ToJsonString() == encode(stamp)
