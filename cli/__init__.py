"""The command line for people who run a mesh; it speaks to the gateway's gRPC door like any other client."""
