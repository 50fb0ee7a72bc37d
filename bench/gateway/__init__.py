"""What gateways cost: Inferdock's and others, in front of replicas that cost nothing. Run by ``make bench-gateway``."""
