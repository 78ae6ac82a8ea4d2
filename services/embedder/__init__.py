"""Turns texts and images into vectors, and owns everything that is stored in Milvus."""
