"""What can be told without a backbone, one file a modality: ``NAME`` and ``answers(train, val, num_classes, rows)``."""
