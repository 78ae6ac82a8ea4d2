"""Asks the models about one image: each role at most once, all of them concurrently.

Logos are looked for among those of the image's namespace too, where it has any.

Which steps need which roles, `analyse` decides.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from typing import Any

from services.mesh.models import ModelSet, TritonModels, bytes_tensor
from services.mesh.tenancy import Tenant
from services.vision.logos import Logos

# The output tensor of each role's model.
_OUTPUTS = {"ocr": "LINES", "caption": "CAPTION", "faces": "FACES", "logos": "LOGOS", "structure": "FACTS"}


class Look:
    """What the roles say about one image.

    Args:
        image: a JPEG or PNG, upright.
        reading: whether the text is read anyway, so that roles that use it wait for it instead of reading again.
    """

    def __init__(
        self, models: TritonModels, model_set: ModelSet, logos: Logos, tenant: Tenant, image: bytes, *, reading: bool
    ) -> None:
        self._models = models
        self._set = model_set
        self._logos = logos
        self._tenant = tenant
        self.image = image
        self._reading = reading
        self._answers: dict[str, asyncio.Task[Any]] = {}

    async def ask(self, role: str) -> Any:
        """The role's answer, parsed from its JSON.

        Raises:
            BrokenImage, ModelFailed, Unavailable: as `TritonModels.infer`.
        """
        if role not in self._answers:
            self._answers[role] = asyncio.create_task(self._run(role))
        # Shielded: two steps may wait for one answer, and one of them giving up must not take it from the other.
        return await asyncio.shield(self._answers[role])

    async def close(self) -> None:
        """Stop what nobody waits for any more."""
        for answer in self._answers.values():
            answer.cancel()
        await asyncio.gather(*self._answers.values(), return_exceptions=True)

    async def _run(self, role: str) -> Any:
        inputs = {"IMAGE": bytes_tensor(self.image)}
        if self._reading and "ocr" in self._set.roles[role].uses:
            inputs |= await self._read_text(role)
        if role == "logos" and self._logos.has(self._tenant):
            return [asdict(each) for each in await self._logos.find(self._tenant, inputs)]
        output = _OUTPUTS[role]
        answer = await self._models.infer(self._set.roles[role].model, inputs, [output])
        return json.loads(answer[output].reshape(-1)[0])

    async def _read_text(self, role: str) -> dict[str, Any]:
        try:
            lines = await self.ask("ocr")
        except Exception:
            # The read step reports this; the role goes on without the text.
            return {}
        if role == "logos":
            return {"LINES": bytes_tensor(json.dumps(lines).encode())}
        return {"TEXT": bytes_tensor(" ".join(line["text"] for line in lines).encode())}
