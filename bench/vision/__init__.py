"""Quality and cost of the lite set's models beside the reference libraries, on the same images in the same run.

One module a role; rendering and the references run in an environment of their own, which no service shares.
"""
