"""The method of the paper: disentangle, sample, judge and pair, and the runner of these stages over a stream of records."""
