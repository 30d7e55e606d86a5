"""English and Indonesian writing for the text backbone: collected from Debian packages, cleaned, and cut into batches."""
