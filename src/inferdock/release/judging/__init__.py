"""Whether a release goes on: gates and how they are asked, figures and how they are judged."""
