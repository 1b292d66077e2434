"""One file per dialect of data, each converted to and from records."""
