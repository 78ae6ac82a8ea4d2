"""What is searched for, as commands take it: a text, or an image by its URL or its path."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Literal

import click
from lensmesh.rest import inputs

INDEXES = ("image", "multimodal", "text", "keyword", "face")
Index = Literal["image", "multimodal", "text", "keyword", "face"]


def query(text: str | None, image: str | None, index: Index) -> inputs.SearchQuery:
    """One query.

    Raises:
        click.UsageError: not exactly one of text and image is given, or the image can't be read.
    """
    if (text is None) == (image is None):
        raise click.UsageError("give either a TEXT or --image")
    if text is not None:
        return {"vector_index": index, "type": "text", "value": text}
    assert image is not None
    if image.lower().startswith(("http://", "https://")):
        return {"vector_index": index, "type": "url", "value": image}
    try:
        content = Path(image).expanduser().read_bytes()
    except OSError as error:
        raise click.UsageError(f"--image: neither a URL nor a file: {error}") from None
    return {"vector_index": index, "type": "base64", "value": base64.b64encode(content).decode()}
