"""What every service stands on: errors, settings, the bus, tenancy, telemetry, blobs, filters and servers."""
