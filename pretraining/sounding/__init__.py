"""What ``pretraining/audio.py`` listens to: synthesised speech and sounds made by recipe."""
