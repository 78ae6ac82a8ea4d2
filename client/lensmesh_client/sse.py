"""Server-Sent Events, as the mesh sends them: fields of one line each, comments in silence."""

from __future__ import annotations

import json
from typing import Any

from lensmesh_client.errors import error_of


class Events:
    """Collects lines into events."""

    def __init__(self) -> None:
        self._name, self._data = "", ""

    def feed(self, line: str) -> list[Any]:
        """The JSON of the event that a line ends, in a list; empty: it ends none.

        Raises:
            LensmeshError: the event says that the stream broke.
        """
        if line:
            field, _, value = line.partition(": ")
            if field == "event":
                self._name = value
            elif field == "data":
                self._data += value
            return []
        name, data, self._name, self._data = self._name, self._data, "", ""
        if not data:
            return []
        value = json.loads(data)
        if name == "error":
            raise error_of(value["type"], value["message"])
        return [value]
