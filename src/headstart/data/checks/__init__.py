"""What the audit looks for: copies, leaks, classes, odd pictures."""
