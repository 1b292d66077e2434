"""The benchmarks of `dream eval`: one file each, with the loader of the official files and the scoring rules."""
