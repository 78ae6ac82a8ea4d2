"""The manifests as rendered keep every rule, and each rule notices what it is there for."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest

from deploy import rules
from deploy.check import KUSTOMIZATIONS
from deploy.cluster import Cluster
from deploy.render import ROOT, Manifest, render

Break = Callable[[dict[str, Manifest]], object]


@pytest.fixture(scope="module", params=KUSTOMIZATIONS, ids=lambda folder: folder.name)
def rendered(request: pytest.FixtureRequest) -> Cluster:
    """One kustomization."""
    return Cluster(render(request.param))


@pytest.fixture(scope="module")
def base() -> Cluster:
    """The base."""
    return Cluster(render(KUSTOMIZATIONS[0]))


def pods(objects: dict[str, Manifest], workload: str) -> Any:
    """The pod template's spec of a workload."""
    return objects[workload]["spec"]["template"]["spec"]


def first(objects: dict[str, Manifest], workload: str) -> Any:
    """The first container of a workload."""
    return pods(objects, workload)["containers"][0]


def add_env(workload: str, name: str, value: str) -> Break:
    """Give a container one more variable."""
    return lambda objects: first(objects, workload)["env"].append({"name": name, "value": value})


def settings_map(objects: dict[str, Manifest]) -> Any:
    """The settings of all services."""
    return next(each["data"] for name, each in objects.items() if name.startswith("ConfigMap settings"))


BROKEN: list[tuple[str, rules.Rule, Break]] = [
    ("a misspelt field", rules.schema, lambda o: o["Deployment vision"]["spec"].update(replica=2)),
    ("text for a number", rules.schema, lambda o: o["Deployment vision"]["spec"].update(replicas="two")),
    (
        "a workload that does not select its pods",
        rules.selectors,
        lambda o: o["Deployment vision"]["spec"]["template"]["metadata"]["labels"].clear(),
    ),
    (
        "a service of nobody",
        rules.selectors,
        lambda o: o["Service vision"]["spec"].update(selector={"app.kubernetes.io/name": "visions"}),
    ),
    (
        "a disruption budget of nobody",
        rules.selectors,
        lambda o: o["PodDisruptionBudget nats"]["spec"].update(selector={"matchLabels": {"app": "nats"}}),
    ),
    (
        "a network policy that lets nobody in",
        rules.selectors,
        lambda o: o["NetworkPolicy triton"]["spec"]["ingress"][0]["from"][0]["podSelector"].update(
            matchExpressions=[{"key": "app.kubernetes.io/name", "operator": "In", "values": ["eyes"]}]
        ),
    ),
    (
        "a service to a closed port",
        rules.ports,
        lambda o: o["Service gateway"]["spec"]["ports"][0].update(targetPort="https"),
    ),
    (
        "a probe of a closed port",
        rules.ports,
        lambda o: first(o, "Deployment embedder")["readinessProbe"]["grpc"].update(port=7101),
    ),
    (
        "a policy for a closed port",
        rules.ports,
        lambda o: o["NetworkPolicy vision"]["spec"]["ingress"][0]["ports"][0].update(port="rpc"),
    ),
    ("an unknown setting of a pod", rules.setting_names, add_env("Deployment vision", "LENSMESH_VISION_SPEED", "9")),
    ("an unknown setting of all", rules.setting_names, lambda o: settings_map(o).update(LENSMESH_NATS_URI="nats:4222")),
    ("a value that is refused", rules.setting_names, lambda o: settings_map(o).update(LENSMESH_STREAM_REPLICAS="many")),
    ("an address of nobody", rules.addresses, lambda o: settings_map(o).update(LENSMESH_TRITON_ADDRESS="triton:8000")),
    ("a closed metrics port", rules.addresses, lambda o: settings_map(o).update(LENSMESH_METRICS_PORT="9000")),
    (
        "listening where no port is open",
        rules.addresses,
        add_env("Deployment vision", "LENSMESH_VISION_ADDRESS", "0.0.0.0:7109"),
    ),
    ("a literal secret", rules.secrets, add_env("Deployment gateway", "LENSMESH_GATEWAY_BOOTSTRAP_KEY", "hunter2")),
    ("a literal token", rules.secrets, add_env("StatefulSet nats", "NATS_TOKEN", "hunter2")),
    (
        "a secret among the settings",
        rules.secrets,
        lambda o: settings_map(o).update(LENSMESH_GATEWAY_BOOTSTRAP_KEY="hunter2"),
    ),
    (
        "a secret object",
        rules.secrets,
        lambda o: o.update(secret={"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "gateway"}}),
    ),
    ("no such config map", rules.references, lambda o: first(o, "Deployment vision").update(envFrom=[_map("setings")])),
    ("no such account", rules.references, lambda o: pods(o, "Deployment vision").update(serviceAccountName="me")),
    ("a variable used before it is set", rules.references, lambda o: first(o, "Deployment vision")["env"].reverse()),
    (
        "GPUs requested and not limited",
        rules.resources,
        lambda o: first(o, "Deployment triton")["resources"]["limits"].pop("nvidia.com/gpu"),
    ),
    ("no memory limit", rules.resources, lambda o: first(o, "Deployment vision")["resources"].pop("limits")),
    ("an image of no Dockerfile", rules.images, lambda o: first(o, "Deployment vision").update(image="lensmesh/eye:1")),
    ("another version", rules.images, lambda o: first(o, "Deployment vision").update(image="lensmesh/vision:9.9.9")),
    ("a floating tag", rules.images, lambda o: first(o, "StatefulSet nats").update(image="nats:latest")),
    (
        "a port that the image does not expose",
        rules.images,
        lambda o: first(o, "Deployment vision")["ports"].append({"name": "more", "containerPort": 7999}),
    ),
    (
        "less time than draining takes",
        rules.drain,
        lambda o: pods(o, "Deployment vision").update(terminationGracePeriodSeconds=30),
    ),
    (
        "restarts when a dependency is away",
        rules.liveness,
        lambda o: first(o, "Deployment vision").update(livenessProbe={"grpc": {"port": 7101}}),
    ),
    (
        "ready without asking",
        rules.liveness,
        lambda o: first(o, "Deployment vision").update(readinessProbe={"tcpSocket": {"port": "grpc"}}),
    ),
    ("root", rules.hardening, lambda o: pods(o, "Deployment triton")["securityContext"].pop("runAsNonRoot")),
    (
        "a writable image",
        rules.hardening,
        lambda o: first(o, "StatefulSet nats")["securityContext"].update(readOnlyRootFilesystem=False),
    ),
    ("service links", rules.hardening, lambda o: pods(o, "Deployment vision").pop("enableServiceLinks")),
    ("nothing is refused", rules.hardening, lambda o: o.pop("NetworkPolicy default-deny")),
]


def _map(name: str) -> dict[str, dict[str, str]]:
    return {"configMapRef": {"name": name}}


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
def test_rule_is_kept(rendered: Cluster, rule: rules.Rule) -> None:
    """Every kustomization keeps every rule."""
    assert [] == list(rule(rendered))


@pytest.mark.parametrize(("rule", "broken"), [each[1:] for each in BROKEN], ids=[each[0] for each in BROKEN])
def test_rule_notices(base: Cluster, rule: rules.Rule, broken: Break) -> None:
    """A base with one mistake breaks the rule about it."""
    objects = {f"{each['kind']} {each['metadata']['name']}": each for each in copy.deepcopy(base.objects)}
    broken(objects)
    assert list(rule(Cluster(list(objects.values()))))


def test_every_rule_is_proven() -> None:
    """No rule goes without a mistake that it notices."""
    assert {rule for _, rule, _ in BROKEN} == set(rules.RULES)


def test_copied_paths_exist() -> None:
    """The Dockerfiles copy only what is in the repository or comes from another stage."""
    for dockerfile in (ROOT / "deploy" / "docker").glob("*.Dockerfile"):
        for line in re.findall(r"^COPY (?!--from)(.+)$", dockerfile.read_text(), re.MULTILINE):
            *sources, _ = line.split()
            assert [] == [each for each in sources if not (ROOT / each).exists()]


@pytest.mark.parametrize("name", ["gateway", "vision", "embedder", "percolator", "stubs"])
def test_images_install_settled_versions(name: str) -> None:
    """An image installs no other version of a package than development does."""
    settled = _pinned(ROOT / "requirements" / "lensmesh.txt")
    image = _pinned(ROOT / "deploy" / "docker" / "requirements" / f"{name}.txt")
    assert {} == {package: version for package, version in image.items() if settled.get(package) != version}


def _pinned(path: Any) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==([\w.]+)", path.read_text(), re.MULTILINE))
