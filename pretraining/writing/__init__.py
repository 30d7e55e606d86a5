"""English and Indonesian writing for the text backbone: collected from Debian packages, cleaned, cut into batches."""
