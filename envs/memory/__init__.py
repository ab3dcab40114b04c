"""Tasks that a policy without memory cannot solve."""
