"""Serves the trivial stand-in of this role."""

from lensmesh_models.trivial import TritonPythonModel

__all__ = ["TritonPythonModel"]
