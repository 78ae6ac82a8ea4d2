"""Logs, metrics and traces, set up once a process: structlog to stderr, Prometheus counters, OpenTelemetry spans.

Traces leave the process only when OTEL_EXPORTER_OTLP_ENDPOINT is set.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping

import structlog
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from prometheus_client import Counter, Gauge, Histogram

from services.mesh.config import MeshSettings

STEP_SECONDS = Histogram(
    "lensmesh_step_seconds",
    "Wall seconds of one step of a task.",
    ["step", "outcome"],
    buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100),
)
JOBS = Counter("lensmesh_jobs_total", "Messages of the bus, by hop and outcome.", ["hop", "outcome"])
REQUESTS = Counter(
    "lensmesh_requests_total", "Requests, by door, operation and result.", ["door", "operation", "result"]
)
DELIVERIES = Counter("lensmesh_deliveries_total", "Calls of webhooks, by outcome.", ["outcome"])
DELIVERY_SECONDS = Histogram(
    "lensmesh_delivery_seconds", "Wall seconds of one call of a webhook.", buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30)
)
DEAD_DELIVERIES = Counter("lensmesh_deliveries_dead_total", "Matches that were given up and became dead letters.")
DELIVERY_QUEUE = Gauge("lensmesh_deliveries_queue", "Matches in memory that wait for being delivered.")
OPEN_BREAKERS = Gauge("lensmesh_deliveries_open_breakers", "Origins that are left alone for a while.")

PERCOLATED = Counter(
    "lensmesh_percolated_total",
    "Stored queries that assets were matched against, by how far each came.",
    ["stage"],
)
PERCOLATE_SECONDS = Histogram(
    "lensmesh_percolate_seconds",
    "Wall seconds of matching one batch of assets here.",
    buckets=(0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10),
)
STORED_QUERIES = Gauge("lensmesh_stored_queries", "Stored queries that this percolator has loaded.")


def set_up(service: str, settings: MeshSettings) -> None:
    """Configure logging and, when an OTLP endpoint is set, tracing."""
    level = getattr(logging, settings.log_level.upper())
    logging.basicConfig(level=max(level, logging.WARNING), stream=sys.stderr, format="%(message)s")
    text = settings.log_format == "text"
    renderer = (
        structlog.dev.ConsoleRenderer(colors=False, pad_event_to=0) if text else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.TimeStamper(fmt="%H:%M:%S" if text else "iso", utc=not text),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    if not text:
        structlog.contextvars.bind_contextvars(service=service)
    if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        _export_traces(service)


def _export_traces(service: str) -> None:
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": f"lensmesh-{service}"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


tracer = trace.get_tracer("lensmesh")


def trace_headers() -> dict[str, str]:
    """The current trace context as message headers (W3C traceparent); empty when nothing is traced."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier


def continue_trace(headers: Mapping[str, str] | None) -> Context:
    """The trace context that message headers carry."""
    return propagate.extract(dict(headers or {}))
