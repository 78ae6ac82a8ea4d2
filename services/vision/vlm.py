"""Asks a vision-language model, over the OpenAI API that vLLM, Triton's own front end and others serve.

What is asked, and what becomes of the answer, `analyse` decides. The server's address is the operator's, not a
caller's, so it does not pass the fetch guard.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping
from typing import Any

import aiohttp
from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.mesh.errors import ModelRefused, Unavailable
from services.vision.structured import conform, json_schema

_JPEG_START = b"\xff\xd8"
# Characters of the server's own words that an error repeats.
_REASON_CHARS_MAX = 200
_FILL = (
    "Answer with one JSON object that follows this JSON schema exactly, and nothing else. Use null, or an empty list, "
    "for what is not to be found there.\n"
)


class VlmSettings(BaseSettings):
    """Where a vision-language model is, and what it may cost."""

    model_config = SettingsConfigDict(env_prefix="LENSMESH_VLM_", extra="ignore")

    url: str = Field(
        "", description="Base URL of an OpenAI-compatible server, such as http://vllm:8000/v1; empty: none."
    )
    model: str = Field("", description="The model's name at that server.")
    api_key: SecretStr = Field(SecretStr(""), description="Bearer token for that server; empty: none is sent.")
    schema_constrained: bool = Field(
        True, description="Send JSON schemas as response_format; off for servers that refuse that: the prompt has them."
    )
    concurrency: int = Field(8, ge=1, description="Questions at a time from one process.")
    deadline_s: float = Field(60, gt=0, description="Deadline of one answer; thousands of tokens take that long.")
    tokens_max: int = Field(1_024, ge=1, description="Tokens of one answer.")
    answer_bytes_max: int = Field(1_000_000, ge=1, description="Bytes of one answer, beyond any number of tokens.")

    @model_validator(mode="after")
    def _usable(self) -> VlmSettings:
        if bool(self.url) != bool(self.model):
            raise ValueError("LENSMESH_VLM_URL and LENSMESH_VLM_MODEL go together: set both or neither")
        if self.url and not self.url.startswith(("http://", "https://")):
            raise ValueError("LENSMESH_VLM_URL must be an http:// or https:// URL")
        return self


class Vlm:
    """A client of one model; make it inside a running event loop and close it."""

    def __init__(self, settings: VlmSettings) -> None:
        self._settings = settings
        self._free = asyncio.Semaphore(settings.concurrency)
        token = settings.api_key.get_secret_value()
        self._session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=aiohttp.ClientTimeout(total=settings.deadline_s),
        )

    @classmethod
    def of(cls, settings: VlmSettings) -> Vlm | None:
        """A client, or None when no model is configured."""
        return cls(settings) if settings.url else None

    @property
    def model(self) -> str:
        """The model's name."""
        return self._settings.model

    async def text(self, image: bytes, prompt: str) -> str:
        """What the model says about an image.

        Args:
            image: a JPEG or PNG, upright.

        Raises:
            Unavailable: the server does not answer in time, or is overloaded.
            ModelRefused: it refuses, or its answer is not one.
        """
        return await self._ask(image, prompt, {})

    async def shaped(self, about: bytes | str, prompt: str, shape: Mapping[str, Any]) -> dict[str, Any]:
        """The model's answer in a response shape: exactly its keys and types, null or an empty list for the unknown.

        Args:
            about: a JPEG or PNG, upright; or a text.

        Raises:
            Unavailable, ModelRefused: as `text`; ModelRefused also when the answer is not a JSON object.
        """
        schema = json_schema(shape)
        constraint: dict[str, Any] = {}
        if self._settings.schema_constrained:
            wanted = {"name": "answer", "strict": True, "schema": schema}
            constraint = {"response_format": {"type": "json_schema", "json_schema": wanted}}
        answer = await self._ask(about, f"{prompt}\n\n{_FILL}{json.dumps(schema)}".lstrip(), constraint)
        # Models that are not constrained like to put their JSON into a fence.
        start, end = answer.find("{"), answer.rfind("}")
        try:
            found = json.loads(answer[start : end + 1])
        except ValueError:
            raise ModelRefused(f"the model {self.model!r} did not answer with a JSON object") from None
        return conform(shape, found)

    async def close(self) -> None:
        """Disconnect; questions under way fail."""
        await self._session.close()

    async def _ask(self, about: bytes | str, prompt: str, constraint: Mapping[str, Any]) -> str:
        body = {
            "model": self.model,
            "max_tokens": self._settings.tokens_max,
            # The same image and prompt shall give the same answer.
            "temperature": 0,
            "messages": [
                {
                    "role": "user",
                    "content": [
                        _part(about),
                        {"type": "text", "text": prompt},
                    ],
                }
            ],
            **constraint,
        }
        async with self._free:
            answer = await self._post(f"{self._settings.url.rstrip('/')}/chat/completions", body)
        try:
            text = answer["choices"][0]["message"]["content"]
        except (LookupError, TypeError):
            text = None
        if not isinstance(text, str) or not text.strip():
            raise ModelRefused(f"the model {self.model!r} gave no answer")
        return text.strip()

    async def _post(self, url: str, body: Mapping[str, Any]) -> Any:
        try:
            async with self._session.post(url, json=body, allow_redirects=False) as response:
                content = await response.content.read(self._settings.answer_bytes_max + 1)
                while len(content) <= self._settings.answer_bytes_max and (more := await response.content.readany()):
                    content += more
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unavailable(f"the model {self.model!r} does not answer: {type(error).__name__}") from error
        if response.status == 429 or response.status >= 500:
            raise Unavailable(f"the model {self.model!r} does not answer now (HTTP {response.status})")
        if response.status != 200:
            reason = content[:_REASON_CHARS_MAX].decode(errors="replace")
            raise ModelRefused(f"the model {self.model!r} refused the question (HTTP {response.status}): {reason}")
        if len(content) > self._settings.answer_bytes_max:
            raise ModelRefused(
                f"the model {self.model!r} answered with more than {self._settings.answer_bytes_max} bytes"
            )
        try:
            return json.loads(content)
        except ValueError:
            raise ModelRefused(f"the model {self.model!r} did not answer with JSON") from None


def _part(about: bytes | str) -> dict[str, Any]:
    """An image or a text as a part of a message."""
    if isinstance(about, str):
        return {"type": "text", "text": about}
    kind = "jpeg" if about.startswith(_JPEG_START) else "png"
    picture = f"data:image/{kind};base64,{base64.b64encode(about).decode()}"
    return {"type": "image_url", "image_url": {"url": picture}}
