"""The method of the paper: disentangle, sample, judge and pair, and the stage that runs one of them over a stream."""
