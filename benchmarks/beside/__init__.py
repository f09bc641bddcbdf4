"""What bench.py consists of: tasks, the systems that are compared, the parts of the benchmark, and its page."""
