"""Pages of listings, counted from 1."""

from __future__ import annotations

from lensmesh.v1 import common_pb2, feature_pb2

PAGE_SIZE_DEFAULT = 10


def page_of(page: int, page_size: int) -> tuple[int, int]:
    """Offset and limit of a page; 0 stands for the defaults."""
    size = page_size or PAGE_SIZE_DEFAULT
    return (max(page, 1) - 1) * size, size


def pagination(total: int, offset: int, size: int) -> common_pb2.Pagination:
    """Where a page stands."""
    page, pages = offset // size + 1, -(-total // size)
    return common_pb2.Pagination(
        total=total,
        page=page,
        page_size=size,
        total_pages=pages,
        next_page=str(page + 1) if page < pages else None,
        previous_page=str(page - 1) if page > 1 else None,
    )


def search_pagination(total: int, offset: int, size: int) -> feature_pb2.SearchPagination:
    """Where a page of a search stands."""
    page, pages = offset // size + 1, -(-total // size)
    return feature_pb2.SearchPagination(
        total=total,
        page=page,
        current_page=page,
        page_size=size,
        total_pages=pages,
        next_page=str(page + 1) if page < pages else None,
        previous_page=str(page - 1) if page > 1 else None,
    )
