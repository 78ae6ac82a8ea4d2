"""The exit codes of every command, for scripts to rely on."""

DONE = 0
# A task failed, the mesh refused, or a check of the doctor's did not pass.
FAILED = 1
# Wrong arguments or settings; click's own code.
USAGE = 2
# Nobody answers, or the mesh says that a server it needs does not.
UNREACHABLE = 3
# Ctrl-C, as shells have it.
INTERRUPTED = 130
