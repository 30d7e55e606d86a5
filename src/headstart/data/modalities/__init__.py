"""One file per kind of input; the file name is the modality's name."""
