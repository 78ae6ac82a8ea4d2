"""The images, and the requirements that they install."""
