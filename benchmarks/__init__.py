"""What a run costs on this machine: ``python -m benchmarks.bench``. Reads the library, is read by nothing in it."""
