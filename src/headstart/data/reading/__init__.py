"""Readers of what the user has (folders, tables, Hub ids, objects), and the way from there to divided rows."""
