"""The Triton model repository, its model sets and the step that fetches other people's weights.

Inference code lives in ``lib/lensmesh_models`` and runs inside tritonserver; nothing here is imported by a service.
"""
