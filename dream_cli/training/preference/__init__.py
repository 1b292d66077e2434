"""Direct preference optimisation with TRL's trainer: shared prefixes, cached image features and reference scores, losses."""
