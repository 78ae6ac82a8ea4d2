"""`python tied.py PROGRAM ARGUMENT...`: becomes that program, which is asked to end when its parent is killed hard.

A script of its own instead of code run between fork and exec: in a parent with threads, gRPC's among them, that can
wait for ever on a lock that another thread held.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    try:
        os.execvp(sys.argv[1], sys.argv[1:])
    except OSError as error:
        sys.exit(f"{sys.argv[1]} can't be started: {error.strerror}")
