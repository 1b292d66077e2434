"""The benchmarks of `dream eval`: one file each, which loads the official files and states the rules."""
