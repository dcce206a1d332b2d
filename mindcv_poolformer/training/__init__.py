"""One optimizer step, and what a run keeps of it."""
