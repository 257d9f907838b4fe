"""From segments to annotations: a local page on the predictions of a run, to name, mend and propagate them."""
