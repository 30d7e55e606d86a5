"""Reading of texts."""
