"""One file per method; the file name is what a plan calls it. Each file offers ``Settings``, a subclass of Stage."""
