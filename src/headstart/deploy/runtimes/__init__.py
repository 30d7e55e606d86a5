"""What can run an ONNX file, one file each: the file name is the runtime's name in tables and verdicts."""
