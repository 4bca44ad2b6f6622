"""A capture as one page that a browser shows without any network."""
