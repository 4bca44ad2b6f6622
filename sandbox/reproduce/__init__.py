"""A captured moment brought back in a sandbox: its versions, its configuration, its data, and its failure."""
