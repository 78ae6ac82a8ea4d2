"""Tiny networks of the standard set's architectures, made here: stand-ins to try every step without its weights.

``python -m models.tiny --out DIR`` writes them as a hub holds the real ones, ``DIR/<repository>/<file>``.
"""
