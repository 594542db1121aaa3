"""What is scored: suites of tasks, from the hub and from local files."""
