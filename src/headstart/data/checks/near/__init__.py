"""How near duplicates are told, one file a modality: ``near(sketches)``."""
