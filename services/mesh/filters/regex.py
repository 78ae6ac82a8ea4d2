"""Regular expressions of strangers, in RE2: time linear in the text, whatever the pattern.

Python's own engine backtracks, and one short pattern can hold up a service for hours.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol, cast

import re2  # type: ignore[import-untyped]

#: Bytes that one compiled pattern may take; a repetition such as (a{1000}){1000} asks for more and is refused.
PATTERN_MEMORY_BYTES_MAX = 1024 * 1024
#: Compiled patterns that are kept; a pattern compiles in about 10 us, a page of documents shares one.
_PATTERNS_KEPT_MAX = 256


class Pattern(Protocol):
    """A compiled pattern."""

    def search(self, text: str) -> object | None:
        """Where the pattern matches anywhere in the text, None when nowhere."""


@lru_cache(maxsize=_PATTERNS_KEPT_MAX)
def compiled(pattern: str, case_sensitive: bool) -> Pattern:
    """Compile an RE2 pattern; raises ValueError with RE2's reason."""
    options = re2.Options()
    options.case_sensitive = case_sensitive
    options.max_mem = PATTERN_MEMORY_BYTES_MAX
    options.log_errors = False
    try:
        return cast(Pattern, re2.compile(pattern, options))
    except re2.error as error:
        reason = error.args[0] if error.args else "unknown"
        raise ValueError(reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)) from error
