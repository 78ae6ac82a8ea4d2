"""A rendered set of objects with the few questions that the rules ask of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from deploy.render import Manifest

_WORKLOADS = ("Deployment", "StatefulSet")


@dataclass(frozen=True, slots=True)
class Pods:
    """The pods of one workload."""

    name: str
    workload: Manifest
    labels: Mapping[str, str]
    spec: Mapping[str, Any]

    @property
    def containers(self) -> list[Manifest]:
        """The pods' containers."""
        return list(self.spec["containers"])

    @property
    def ports(self) -> dict[str, int]:
        """The numbers of all named ports."""
        return {port["name"]: port["containerPort"] for each in self.containers for port in each.get("ports", ())}


@dataclass(frozen=True, slots=True)
class Cluster:
    """What would be applied."""

    objects: list[Manifest]

    def kind(self, *kinds: str) -> Iterator[Manifest]:
        """All objects of these kinds."""
        return (each for each in self.objects if each["kind"] in kinds)

    def names(self, kind: str) -> set[str]:
        """The names of all objects of a kind."""
        return {each["metadata"]["name"] for each in self.kind(kind)}

    def pods(self) -> Iterator[Pods]:
        """The pods of all workloads."""
        for each in self.kind(*_WORKLOADS):
            template = each["spec"]["template"]
            yield Pods(each["metadata"]["name"], each, template["metadata"]["labels"], template["spec"])

    def selected(self, selector: Mapping[str, Any]) -> list[Pods]:
        """The pods that a label selector (matchLabels and `In` expressions) selects."""
        return [each for each in self.pods() if selects(selector, each.labels)]

    def environment(self, container: Manifest) -> dict[str, str]:
        """The literal variables of a container: of its config maps, then its own."""
        maps = {each["metadata"]["name"]: each.get("data", {}) for each in self.kind("ConfigMap")}
        found: dict[str, str] = {}
        for source in container.get("envFrom", ()):
            found |= maps.get(source.get("configMapRef", {}).get("name"), {})
        return found | {each["name"]: each["value"] for each in container.get("env", ()) if "value" in each}


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a label selector selects these labels."""
    wanted = {key: [value] for key, value in selector.get("matchLabels", {}).items()}
    wanted |= {each["key"]: each["values"] for each in selector.get("matchExpressions", ())}
    return all(labels.get(key) in values for key, values in wanted.items())
