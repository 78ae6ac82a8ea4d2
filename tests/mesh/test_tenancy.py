"""The scope of a namespace: no id, however it is spelt, leads out of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.mesh.errors import NotFound
from services.mesh.tenancy import Tenant, derived_id, derived_uuid, namespace_id

TENANT = Tenant("ns_a")
ESCAPES = [
    "", ".", "..", "a.b", "*", ">", "a.>", "a b", " ", "a\n", "\n", "a\r\nPUB x 1", "a\t", "a/b", "../x", "a\0", "ä",
    "ns_b.x", "$KV", "x" * 129, "a\u2028", "\u0661",
]  # fmt: skip


@pytest.mark.parametrize("token", ESCAPES, ids=repr)
def test_a_token_that_could_escape_is_refused(token: str) -> None:
    """Dots, wildcards, blanks, line ends and overlong tokens can't be ids, so nothing is found under them."""
    for build in (TENANT.key, TENANT.pattern):
        with pytest.raises(NotFound):
            build(token)
        with pytest.raises(NotFound):
            build("fine", token)
    with pytest.raises(NotFound):
        Tenant(token)


@given(st.text(max_size=20))
def test_any_text_stays_inside_or_is_refused(text: str) -> None:
    """Whatever is asked for, the key has the namespace and one token for each part."""
    try:
        key = TENANT.key(text, text)
    except NotFound:
        return
    assert ["ns_a", text, text] == key.split(".")
    assert not set(key) & set("*> \r\n\t\0")


def test_patterns_cover_one_namespace() -> None:
    """Wildcards stand behind the namespace, never for it."""
    assert "ns_a.*.x.*" == TENANT.pattern(None, "x", None)


@given(st.text(max_size=30), st.text(max_size=30))
def test_names_of_collections_are_scoped(name: str, other: str) -> None:
    """Equal names in two namespaces are two collections, and so are different names in one."""
    assert TENANT.collection_id(name) != Tenant("ns_b").collection_id(name)
    assert (name == other) == (TENANT.collection_id(name) == TENANT.collection_id(other))
    TENANT.key(TENANT.collection_id(name), namespace_id(name))


def test_files_belong_to_one_namespace() -> None:
    """A blob's key is owned by its own namespace alone, also where one name begins with the other."""
    key = Tenant("ns_a").blob("0" * 64)
    assert [True, False, False] == [Tenant(each).owns_blob(key) for each in ("ns_a", "ns_b", "ns")]
    assert not Tenant("ns_a").owns_blob(Tenant("ns_ab").blob("0"))


def test_names_in_milvus_are_identifiers() -> None:
    """The names of a namespace's collections in Milvus are letters, digits and underscores."""
    assert "ns_a_b_rows_v1_2" == Tenant("ns_a-b").milvus_collection("rows v1.2")


def test_derived_ids_are_stable_and_do_not_run_together() -> None:
    """The same parts give the same id; parts that only join to the same text do not."""
    assert derived_id("k", "a", "b") == derived_id("k", "a", "b")
    assert derived_id("k", "ab", "c") != derived_id("k", "a", "bc")
    assert derived_uuid("ab", "c") != derived_uuid("a", "bc")
