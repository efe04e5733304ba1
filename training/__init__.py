"""Training: data, loss, optimisers, the loop, and runs that survive interruptions."""
