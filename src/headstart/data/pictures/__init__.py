"""From the bytes of a picture to pixels: formats, orientation, modes, and changes by chance."""
