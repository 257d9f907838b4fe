"""The three stages of the method, and what they share: features, difference maps, the trace of a clip."""
