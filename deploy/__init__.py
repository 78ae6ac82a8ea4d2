"""How lensmesh is deployed: images, Kubernetes manifests, and the check that keeps both true to the code."""
