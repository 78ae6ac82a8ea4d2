"""Verifies the Kubernetes manifests without a cluster: python -m deploy.check. Exits with 1 when a rule is broken."""

from __future__ import annotations

import sys

from deploy.cluster import Cluster
from deploy.render import ROOT, RenderError, render
from deploy.rules import RULES

KUSTOMIZATIONS = tuple(ROOT / "deploy" / "k8s" / name for name in ("base", "overlays/single"))


def main() -> int:
    """Check every kustomization by every rule; returns the exit status."""
    problems = 0
    for folder in KUSTOMIZATIONS:
        try:
            cluster = Cluster(render(folder))
        except RenderError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        print(f"{folder.relative_to(ROOT)}: {len(cluster.objects)} objects")
        for rule in RULES:
            broken = list(rule(cluster))
            problems += len(broken)
            print(f"  {'FAIL' if broken else 'ok  '} {rule.__doc__}")
            for line in broken:
                print(f"       {line}")
    return min(problems, 1)


if __name__ == "__main__":
    sys.exit(main())
