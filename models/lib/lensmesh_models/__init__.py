"""Pre- and post-processing shared by the Python models of the repository.

Runs inside tritonserver's model processes; the networks themselves are called by name through ``serving``.
"""
