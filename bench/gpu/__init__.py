"""Speed of a published model's shape on a GPU: what is asked for, and how a sweep of rates is judged."""
