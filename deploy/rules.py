"""What must hold between the manifests, the images and the code, beyond what a schema can say: one function a rule.

A rule's docstring is what `deploy.check` prints; it yields one line for each place that breaks it.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]

from deploy import settings
from deploy.cluster import Cluster, Pods
from deploy.render import ROOT

KUBERNETES = "1.37"
_DOCKER = ROOT / "deploy" / "docker"
_PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
_GPU = "nvidia.com/gpu"
_SECRET_NAME = re.compile(r"(TOKEN|PASSWORD|SECRET|_KEY)$")
_REFERENCE = re.compile(r"\$\((\w+)\)")
_classes = functools.cache(settings.settings_classes)

Rule = Callable[[Cluster], Iterator[str]]


def schema(cluster: Cluster) -> Iterator[str]:
    """every object keeps the strict schema of its kind"""
    for each in cluster.objects:
        try:
            kubernetes_validate.validate(each, KUBERNETES, strict=True)
        except kubernetes_validate.ValidationError as error:
            yield f"{_title(each)}: {'.'.join(map(str, error.path))}: {error.message}"


def selectors(cluster: Cluster) -> Iterator[str]:
    """every selector selects pods that are there"""
    for pods in cluster.pods():
        if pods not in cluster.selected(pods.workload["spec"]["selector"]):
            yield f"{_title(pods.workload)}: its selector does not match its own pods"
    for each in cluster.kind("Service", "PodDisruptionBudget", "NetworkPolicy"):
        for selector in _selectors(each):
            if not cluster.selected(selector):
                yield f"{_title(each)}: {selector} selects no pod"


def ports(cluster: Cluster) -> Iterator[str]:
    """services, probes and network policies name ports that the containers open"""
    for each in cluster.kind("Service"):
        for pods in cluster.selected({"matchLabels": each["spec"]["selector"]}):
            for port in each["spec"]["ports"]:
                yield from _open(f"{_title(each)}: targetPort", port.get("targetPort", port["port"]), pods)
    for pods in cluster.pods():
        for probe, port in _probed(pods):
            yield from _open(probe, port, pods)
    for each in cluster.kind("NetworkPolicy"):
        for port in _incoming(each):
            if not any(port in pods.ports for pods in cluster.selected(each["spec"]["podSelector"])):
                yield f"{_title(each)}: no pod has a port {port!r}"


def setting_names(cluster: Cluster) -> Iterator[str]:
    """every LENSMESH_ name is one of the code's settings, and the code accepts its value"""
    known = settings.names(_classes())
    for pods in cluster.pods():
        for container in pods.containers:
            values = cluster.environment(container)
            given = values.keys() | {each["name"] for each in container.get("env", ())}
            for name in sorted(given - known):
                if name.startswith(settings.PREFIX):
                    yield f"{pods.name}: {name} is no setting of the code"
            yield from (f"{pods.name}: {mistake}" for mistake in settings.mistakes(_classes(), values))
    for each in cluster.kind("ConfigMap"):
        for name in each.get("data", {}):
            if name.startswith(settings.PREFIX) and name not in known:
                yield f"{_title(each)}: {name} is no setting of the code"


def addresses(cluster: Cluster) -> Iterator[str]:
    """every address in the settings is a service and port in here, or a port that the pod itself opens"""
    reachable = {
        f"{each['metadata']['name']}:{port['port']}"
        for each in cluster.kind("Service")
        for port in each["spec"]["ports"]
    }
    for pods in cluster.pods():
        for container in pods.containers:
            for name, value in cluster.environment(container).items():
                address = value.rsplit("@", 1)[-1]
                host, _, port = address.partition(":")
                if name.endswith("_ADDRESS") or name == "LENSMESH_NATS_URL":
                    opened = host == "0.0.0.0" and int(port) in pods.ports.values()
                    if not opened and address not in reachable:
                        yield f"{pods.name}: {name}: nothing is reached at {address}"
                elif name.endswith("_PORT") and name.startswith(settings.PREFIX):
                    yield from _open(f"{pods.name}: {name}", int(value), pods)


def secrets(cluster: Cluster) -> Iterator[str]:
    """no secret is written down: each comes from a Secret that is not in here"""
    secret = settings.names(_classes(), secret=True)

    def is_secret(name: str) -> bool:
        return name in secret or bool(_SECRET_NAME.search(name))

    for each in cluster.kind("Secret"):
        yield f"{_title(each)}: secrets are made in the cluster"
    for each in cluster.kind("ConfigMap"):
        yield from (f"{_title(each)}: {name} is a secret" for name in each.get("data", {}) if is_secret(name))
    for pods in cluster.pods():
        for container in pods.containers:
            for each in container.get("env", ()):
                if is_secret(each["name"]) and "secretKeyRef" not in each.get("valueFrom", {}):
                    yield f"{pods.name}: {each['name']} does not come from a Secret"


def references(cluster: Cluster) -> Iterator[str]:
    """every config map, account and variable that is referred to is there"""
    for pods in cluster.pods():
        if pods.spec.get("serviceAccountName") not in cluster.names("ServiceAccount"):
            yield f"{pods.name}: there is no account {pods.spec.get('serviceAccountName')!r}"
        maps = [each["configMap"]["name"] for each in pods.spec.get("volumes", ()) if "configMap" in each]
        for container in pods.containers:
            maps += [each["configMapRef"]["name"] for each in container.get("envFrom", ()) if "configMapRef" in each]
            before: set[str] = set()
            for each in container.get("env", ()):
                for name in set(_REFERENCE.findall(each.get("value", ""))) - before:
                    yield f"{pods.name}: {each['name']} refers to {name}, which no variable before it is"
                before.add(each["name"])
        for name in set(maps) - cluster.names("ConfigMap"):
            yield f"{pods.name}: there is no config map {name!r}"


def resources(cluster: Cluster) -> Iterator[str]:
    """every container requests CPU and memory and limits memory; a GPU's request is its limit"""
    for pods in cluster.pods():
        for container in pods.containers:
            requests, limits = (container.get("resources", {}).get(key, {}) for key in ("requests", "limits"))
            if not {"cpu", "memory"} <= requests.keys() or "memory" not in limits:
                yield f"{pods.name}: {container['name']} lacks requests or a memory limit"
            if requests.get(_GPU) != limits.get(_GPU):
                yield f"{pods.name}: {container['name']} requests {requests.get(_GPU)} GPUs of {limits.get(_GPU)}"


def images(cluster: Cluster) -> Iterator[str]:
    """every image of ours has a Dockerfile, the project's version, and opens the container's ports"""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    built = _built()
    for pods in cluster.pods():
        for container in pods.containers:
            house, _, rest = container["image"].rpartition("/")
            name, _, tag = rest.partition(":")
            if not tag or tag == "latest":
                yield f"{pods.name}: {container['image']} has no fixed tag"
            if house != "lensmesh":
                continue
            if name not in built:
                yield f"{pods.name}: no Dockerfile builds {name}"
            elif tag != version:
                yield f"{pods.name}: {container['image']} is not of version {version}"
            elif not {each["containerPort"] for each in container.get("ports", ())} <= built[name]:
                yield f"{pods.name}: its image does not expose all ports of {container['name']}"


def drain(cluster: Cluster) -> Iterator[str]:
    """services have more time to end than their drain limits add up to"""
    needed = settings.drain_s_max(_classes())
    for pods in cluster.pods():
        if pods.workload["metadata"].get("labels", {}).get("lensmesh/role") == "service":
            pause = pods.containers[0].get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
            given = pods.spec.get("terminationGracePeriodSeconds", 30)
            if given <= pause + needed:
                yield f"{pods.name}: is killed after {given} s, but may take {pause} + {needed:g}"


def liveness(cluster: Cluster) -> Iterator[str]:
    """services say by gRPC health when they are ready, and are not restarted because a dependency is away"""
    for pods in cluster.pods():
        if pods.workload["metadata"].get("labels", {}).get("lensmesh/role") == "service":
            container = pods.containers[0]
            if "grpc" not in container.get("readinessProbe", {}):
                yield f"{pods.name}: readiness does not ask gRPC health"
            for probe in ("startupProbe", "livenessProbe"):
                if "tcpSocket" not in container.get(probe, {}):
                    yield f"{pods.name}: {probe} asks for more than the process"


def hardening(cluster: Cluster) -> Iterator[str]:
    """no pod runs as root, writes to its image, holds a token of Kubernetes, or speaks to whom it need not"""
    for pods in cluster.pods():
        context = pods.spec.get("securityContext", {})
        held = {
            "runAsNonRoot": context.get("runAsNonRoot") is True,
            "seccompProfile": context.get("seccompProfile") == {"type": "RuntimeDefault"},
            "automountServiceAccountToken": pods.spec.get("automountServiceAccountToken") is False,
            # A service of Kubernetes named like a setting would otherwise become one.
            "enableServiceLinks": pods.spec.get("enableServiceLinks") is False,
        }
        for container in pods.containers:
            own = container.get("securityContext", {})
            held["readOnlyRootFilesystem"] = own.get("readOnlyRootFilesystem") is True
            held["allowPrivilegeEscalation"] = own.get("allowPrivilegeEscalation") is False
            held["capabilities"] = own.get("capabilities") == {"drop": ["ALL"]}
            yield from (f"{pods.name}: {container['name']}: {name}" for name, kept in held.items() if not kept)
    denied = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    if denied not in [each["spec"] for each in cluster.kind("NetworkPolicy")]:
        yield "no network policy refuses everything first"


RULES: tuple[Rule, ...] = (
    schema,
    selectors,
    ports,
    setting_names,
    addresses,
    secrets,
    references,
    resources,
    images,
    drain,
    liveness,
    hardening,
)


def _title(manifest: dict[str, Any]) -> str:
    return f"{manifest['kind']} {manifest['metadata']['name']}"


def _selectors(manifest: dict[str, Any]) -> Iterator[dict[str, Any]]:
    spec = manifest["spec"]
    if manifest["kind"] == "Service":
        yield {"matchLabels": spec["selector"]}
        return
    yield spec.get("podSelector") or spec.get("selector") or {}
    for rule in (*spec.get("ingress", ()), *spec.get("egress", ())):
        for peer in (*rule.get("from", ()), *rule.get("to", ())):
            if "podSelector" in peer and "namespaceSelector" not in peer:
                yield peer["podSelector"]


def _incoming(policy: dict[str, Any]) -> Iterator[str]:
    for rule in policy["spec"].get("ingress", ()):
        yield from (port["port"] for port in rule.get("ports", ()))


def _probed(pods: Pods) -> Iterator[tuple[str, int | str]]:
    for container in pods.containers:
        for probe in _PROBES:
            for action in ("grpc", "tcpSocket", "httpGet"):
                if action in container.get(probe, {}):
                    yield f"{probe} of {container['name']}", container[probe][action]["port"]


def _open(what: str, port: int | str, pods: Pods) -> Iterator[str]:
    if port not in pods.ports and port not in pods.ports.values():
        yield f"{what}: {pods.name} opens no port {port!r}"


def _built() -> dict[str, set[int]]:
    """The ports that each image exposes, by its name."""
    stages = re.split(r"^FROM .* AS (\w+)$", (_DOCKER / "services.Dockerfile").read_text(), flags=re.MULTILINE)
    found = {name: _exposed(body) for name, body in zip(stages[1::2], stages[2::2], strict=True)}
    others = (path for path in _DOCKER.glob("*.Dockerfile") if path.stem != "services")
    found |= {Path(path).stem: _exposed(path.read_text()) for path in others}
    return {name: ports for name, ports in found.items() if ports}


def _exposed(dockerfile: str) -> set[int]:
    return {int(port) for line in re.findall(r"^EXPOSE (.+)$", dockerfile, re.MULTILINE) for port in line.split()}
