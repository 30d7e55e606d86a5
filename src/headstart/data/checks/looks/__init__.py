"""What is odd about how rows are stored, one file a modality: ``looks(view)``, and ``STORED`` for ``shortcuts``."""
