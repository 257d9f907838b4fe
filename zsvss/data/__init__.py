"""Videos, clips and benchmarks."""
