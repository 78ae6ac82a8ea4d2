"""The tensor contracts of the model sets, asked of a real tritonserver."""
