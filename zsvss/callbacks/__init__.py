"""Lightning callbacks: progress, timing and what a run writes."""
