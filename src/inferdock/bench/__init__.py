"""Load on any OpenAI-compatible address: arrivals, prompts, a client that takes times, and what follows from them."""
