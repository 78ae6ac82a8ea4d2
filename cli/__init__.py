"""The command line for people who use or run a mesh; a client of the REST door like any other."""
