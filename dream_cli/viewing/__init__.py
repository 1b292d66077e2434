"""Looking at records: a file as SQL views, what is in it, and single records as a person reads them."""
