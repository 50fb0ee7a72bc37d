"""Running the platform on one machine: replicas and gateway as child processes, watched, restarted and drained."""
