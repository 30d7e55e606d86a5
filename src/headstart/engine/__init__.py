"""The engine: streams of batches, one training loop, the frontier cache, checkpoints and evaluation."""
