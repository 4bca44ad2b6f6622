"""The shop's web page."""
