"""Turns foreign weight files into the ONNX files that the model repository serves, with numpy and onnx alone.

Nothing here downloads or decides what to convert: see ``models.fetch``.
"""
