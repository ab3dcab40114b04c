"""In-context reinforcement learning: learning histories, the policies that make them, and those distilled from them."""
