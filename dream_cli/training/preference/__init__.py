"""Direct preference optimisation on TRL's trainer: shared prefixes, kept image features and reference scores, losses."""
