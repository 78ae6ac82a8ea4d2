"""Says what an image shows: the requested steps run concurrently, each with its own threshold, time and error.

Where the image comes from and where the findings go is not known here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct
from lensmesh.v1 import index_pb2, task_pb2, vision_pb2
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.mesh import telemetry
from services.mesh.errors import LensmeshError
from services.mesh.extractors import done, vision_steps
from services.mesh.models import ModelSet, TritonModels
from services.mesh.tenancy import Tenant
from services.vision.logos import Logos
from services.vision.look import Look
from services.vision.structured import Facts, fill, wanted_facts
from services.vision.vlm import Vlm

# What fills the response shape of a text when there is no vision-language model.
_TEXT_FACTS = "text-facts-1"
# The role that answers each step.
_ROLES = {"read": "ocr", "describe": "caption", "faces": "faces", "logos": "logos", "json_output": "structure"}


class AnalyseSettings(BaseSettings):
    """Limits of what one image may yield, so that findings fit into one message of the bus."""

    model_config = SettingsConfigDict(env_prefix="LENSMESH_VISION_", extra="ignore")

    text_chars_max: int = Field(64_000, ge=1, description="Characters of read text kept; the rest is cut.")
    lines_max: int = Field(1_000, ge=1, description="Lines of text kept with their places.")
    faces_max: int = Field(500, ge=1, description="Faces kept, the surest first.")
    faces_embedded_max: int = Field(
        32, ge=0, le=64, description="Faces of an image that go into the index face, the surest first; a call each."
    )
    logos_max: int = Field(200, ge=1, description="Logos kept, the surest first.")


@dataclass(frozen=True, slots=True)
class Analysis:
    """What was found, and how each requested step went."""

    found: vision_pb2.ImageAnalysis
    steps: dict[str, task_pb2.TaskStep]


class Analyser:
    """Runs the steps of one image."""

    def __init__(
        self,
        models: TritonModels,
        model_set: ModelSet,
        logos: Logos,
        settings: AnalyseSettings,
        vlm: Vlm | None = None,
    ) -> None:
        self._models = models
        self._set = model_set
        self._known = logos
        self._settings = settings
        self._vlm = vlm

    async def analyse(
        self,
        tenant: Tenant,
        image: bytes,
        extractors: index_pb2.FeatureExtractors,
        *,
        attempt: int = 1,
        last_attempt: bool = True,
    ) -> Analysis:
        """Run the requested steps.

        Args:
            tenant: whose logos are looked for beside those that ship.
            image: a JPEG or PNG, upright.
            last_attempt: when False, a retryable failure is raised instead of being recorded in its step.

        Raises:
            LensmeshError: a step may succeed later, and this is not the last attempt.
        """
        names = vision_steps(extractors)
        found = vision_pb2.ImageAnalysis()
        look = Look(self._models, self._set, self._known, tenant, image, reading="read" in names)
        work: dict[str, Callable[[], Awaitable[str | None]]] = {
            "read": lambda: self._read(look, extractors.read, found),
            "describe": lambda: self._describe(look, extractors.describe, found),
            "faces": lambda: self._faces(look, extractors.detect.faces, found),
            "logos": lambda: self._logos(look, extractors.detect.logos, found),
            "json_output": lambda: self._json_output(look, extractors.json_output, found),
        }
        try:
            results = await asyncio.gather(
                *(self._step(name, work[name], attempt, last_attempt) for name in names), return_exceptions=True
            )
        finally:
            await look.close()
        steps: dict[str, task_pb2.TaskStep] = {}
        for name, result in zip(names, results, strict=True):
            if isinstance(result, BaseException):
                raise result
            steps[name] = result
            if result.state == task_pb2.STEP_STATE_DONE:
                found.models[name] = self.made_by(name, extractors)
        return Analysis(found, steps)

    async def analyse_text(
        self, text: str, extractors: index_pb2.FeatureExtractors, *, attempt: int = 1, last_attempt: bool = True
    ) -> Analysis:
        """Run the one step that a text may have: json_output.

        Raises:
            LensmeshError: it may succeed later, and this is not the last attempt.
        """
        found = vision_pb2.ImageAnalysis(text=text)
        if not extractors.HasField("json_output"):
            return Analysis(found, {})

        async def fill_shape() -> str | None:
            block = extractors.json_output
            shape = MessageToDict(block.response_shape)
            if self._vlm:
                filled = await self._vlm.shaped(text, block.prompt, shape)
            else:
                facts = {"lines": text.splitlines(), "words": text.split()}
                filled = fill(shape, Facts(frozenset(facts), facts, separator="\n"))
            for key, value in filled.items():
                found.json_output[key] = value
            return self._by_whom(block, True)

        step = await self._step("json_output", fill_shape, attempt, last_attempt)
        if step.state == task_pb2.STEP_STATE_DONE:
            found.models["json_output"] = self.made_by("json_output", extractors, is_text=True)
        return Analysis(found, {"json_output": step})

    def made_by(self, step: str, extractors: index_pb2.FeatureExtractors, *, is_text: bool = False) -> str:
        """The version of the model that answers a step of such a request."""
        asks_vlm = step == "json_output" or (step in ("read", "describe") and getattr(extractors, step).prompt)
        if self._vlm and asks_vlm:
            return self._vlm.model
        if is_text:
            return _TEXT_FACTS
        return self._set.roles[_ROLES[step]].version

    async def _step(
        self, name: str, work: Callable[[], Awaitable[str | None]], attempt: int, last_attempt: bool
    ) -> task_pb2.TaskStep:
        started = time.perf_counter()
        try:
            note = await work()
        except LensmeshError as error:
            telemetry.STEP_SECONDS.labels(name, "failed").observe(time.perf_counter() - started)
            if error.retryable and not last_attempt:
                error.details = (error.details or {}) | {"step": name}
                raise
            failure = task_pb2.TaskError(message=error.message, type=error.type, stage=name, retryable=error.retryable)
            return task_pb2.TaskStep(
                state=task_pb2.STEP_STATE_FAILED,
                ms=round((time.perf_counter() - started) * 1e3, 1),
                attempts=attempt,
                error=failure,
            )
        telemetry.STEP_SECONDS.labels(name, "done").observe(time.perf_counter() - started)
        return done((time.perf_counter() - started) * 1e3, attempt, note)

    async def _read(self, look: Look, block: index_pb2.Read, found: vision_pb2.ImageAnalysis) -> str | None:
        lines = await look.ask("ocr")
        for line in lines[: self._settings.lines_max]:
            found.lines.add(text=line["text"], confidence=line["confidence"], quad=_flat(line["quad"]))
        if self._vlm and block.prompt:
            text = await self._vlm.text(look.image, block.prompt)
        else:
            text = "\n".join(line["text"] for line in lines)
        found.text = text[: self._settings.text_chars_max]
        if block.HasField("json_output"):
            await self._structure(look, block.prompt, block.json_output, found)
        return self._by_whom(block, block.HasField("json_output"))

    async def _describe(self, look: Look, block: index_pb2.Describe, found: vision_pb2.ImageAnalysis) -> str | None:
        if self._vlm and block.prompt:
            text = await self._vlm.text(look.image, block.prompt)
        else:
            text = (await look.ask("caption"))["text"]
        longest = block.max_length if block.HasField("max_length") else self._settings.text_chars_max
        found.description = cut(text, longest)
        if block.HasField("json_output"):
            await self._structure(look, block.prompt, block.json_output, found)
        return self._by_whom(block, block.HasField("json_output"))

    async def _faces(self, look: Look, block: index_pb2.Detector, found: vision_pb2.ImageAnalysis) -> str | None:
        threshold = self._threshold("faces", block)
        faces = [each for each in await look.ask("faces") if each["confidence"] >= threshold]
        faces.sort(key=lambda each: -each["confidence"])
        found.detect.SetInParent()
        for each in faces[: self._settings.faces_max]:
            found.detect.faces.add(confidence=each["confidence"], box=each["box"], landmarks=_flat(each["landmarks"]))
        if not block.embed:
            return None
        if "embed_face" not in self._set.roles:
            return f"faces can't be searched by: the model set {self._set.name!r} has no model for it"
        for position, face in enumerate(found.detect.faces[: self._settings.faces_embedded_max]):
            face.field_name = f"face-{position}"
        return None

    async def _logos(self, look: Look, block: index_pb2.Detector, found: vision_pb2.ImageAnalysis) -> None:
        threshold = self._threshold("logos", block)
        logos = [each for each in await look.ask("logos") if each["confidence"] >= threshold]
        logos.sort(key=lambda each: -each["confidence"])
        found.detect.SetInParent()
        for each in logos[: self._settings.logos_max]:
            found.detect.logos.add(
                name=each["name"],
                confidence=each["confidence"],
                quad=_flat(each["quad"]),
                logo_id=each.get("logo_id"),
            )

    async def _json_output(
        self, look: Look, block: index_pb2.JsonOutput, found: vision_pb2.ImageAnalysis
    ) -> str | None:
        await self._structure(look, block.prompt, block.response_shape, found)
        return self._by_whom(block, True)

    async def _structure(self, look: Look, prompt: str, shape_struct: Struct, found: vision_pb2.ImageAnalysis) -> None:
        shape = MessageToDict(shape_struct)
        if self._vlm:
            filled = await self._vlm.shaped(look.image, prompt, shape)
        else:
            filled = fill(shape, await self._facts(look, wanted_facts(shape)))
        for key, value in filled.items():
            found.json_output[key] = value

    async def _facts(self, look: Look, wanted: set[str]) -> Facts:
        values: dict[str, list[str] | str | int] = {}
        if wanted & {"lines", "words"}:
            lines = values["lines"] = [line["text"] for line in await look.ask("ocr")]
            values["words"] = " ".join(lines).split()
        if "description" in wanted:
            values["description"] = (await look.ask("caption"))["text"]
        faces: list[Any] = []
        if wanted & {"faces", "people"}:
            threshold = self._set.roles["faces"].threshold
            faces = [each for each in await look.ask("faces") if each["confidence"] >= threshold]
            values["faces"] = ["face"] * len(faces)
        if "logos" in wanted:
            threshold = self._set.roles["logos"].threshold
            values["logos"] = [each["name"] for each in await look.ask("logos") if each["confidence"] >= threshold]
        if wanted & {"objects", "classes", "colors", "width", "height", "people"}:
            measured = await look.ask("structure")
            values["objects"] = [each["label"] for each in measured["objects"]]
            values["classes"] = [each["label"] for each in measured["classes"]]
            values["colors"] = [each["name"] for each in measured["dominant_colors"]]
            values["width"], values["height"] = measured["width"], measured["height"]
            persons = sum(each["label"] == "person" for each in measured["objects"])
            values["people"] = max(persons, len(faces))
        return Facts(frozenset(values), values)

    def _threshold(self, role: str, block: index_pb2.Detector) -> float:
        if block.HasField("confidence_threshold"):
            return block.confidence_threshold
        return self._set.roles[role].threshold

    def _by_whom(self, block: index_pb2.Read | index_pb2.Describe | index_pb2.JsonOutput, shaped: bool) -> str | None:
        """What the step's record says about the vision-language model."""
        if self._vlm and (block.prompt or shaped):
            return f"answered by {self._vlm.model}"
        if block.HasField("prompt"):
            return f"the prompt was not used: the model set {self._set.name!r} takes none"
        return None


def cut(text: str, length: int) -> str:
    """At most `length` characters, cut at the end of a word where there is one."""
    if len(text) <= length:
        return text
    head = text[: length + 1]
    return (head.rsplit(" ", 1)[0] if " " in head else text[:length]).rstrip(" ,;:-")


def _flat(points: list[list[float]]) -> list[float]:
    return [coordinate for point in points for coordinate in point]
