"""From what the user has (folders, tables, arrays, Hub ids) to audited splits and batches."""
