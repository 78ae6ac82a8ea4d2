"""Benchmarks: one command each, ratios measured side by side in one run, results as JSON in bench/results/."""
