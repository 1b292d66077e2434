"""Records and evaluations as HTML: one file that fetches nothing, with harmful text and pictures blurred until clicked."""
