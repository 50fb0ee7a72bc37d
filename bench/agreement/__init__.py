"""Whether the numbers that the platform shows agree with what a load generator counted itself."""
