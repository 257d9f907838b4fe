"""Speed: the published schedule, exact and fast side by side, and the reading of frames."""
