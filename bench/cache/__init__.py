"""What the response cache costs and how well it judges."""
