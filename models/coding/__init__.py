"""Real bits: range coder, container, coding orders, the coding loop, integer networks."""
