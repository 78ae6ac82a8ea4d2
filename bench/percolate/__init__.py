"""`make bench-percolate`: what matching a new asset against stored queries costs."""
