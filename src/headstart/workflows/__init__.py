"""What the verbs do, each to be read from top to bottom like a recipe."""
