"""What is particular about transformers' networks of one modality, one file each: their class, spec, pooling and files.

``HEADS`` are the starts of names that a pretrained trunk may lack because they belong to a classifier.
"""
