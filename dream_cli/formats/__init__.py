"""One file per dialect of data: to and from our records."""
