"""Charts, kustomizations and folders of manifests, each turned into a list of manifests."""
