"""A typed client of lensmesh: by REST or gRPC, blocking or to be awaited."""

from lensmesh_client.errors import FieldViolation, LensmeshError
from lensmesh_client.grpc_client import AsyncGrpcClient, GrpcClient
from lensmesh_client.rest import TERMINAL, AsyncRestClient, RestClient
from lensmesh_client.retries import NEVER, Retries

__all__ = [
    "NEVER",
    "TERMINAL",
    "AsyncGrpcClient",
    "AsyncRestClient",
    "FieldViolation",
    "GrpcClient",
    "LensmeshError",
    "RestClient",
    "Retries",
]
