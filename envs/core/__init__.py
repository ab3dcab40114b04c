"""The contract of environments and the machinery around it."""
