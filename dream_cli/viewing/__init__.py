"""Views of records: a file as SQL views, its summary, and single records in readable form."""
