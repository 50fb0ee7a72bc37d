"""Shadow traffic: copies of clients' requests for another revision, whose answers are compared and thrown away."""
