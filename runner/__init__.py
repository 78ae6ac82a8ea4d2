"""Starts and keeps alive the processes of a lensmesh on one machine."""

import os

# Read when grpc is first imported: children are started by fork and exec, where gRPC's fork handlers only complain.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
