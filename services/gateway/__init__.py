"""The doors of the mesh: REST and gRPC, over one core that records, dispatches and reads."""
