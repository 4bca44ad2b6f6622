"""Git: refs become commits, commits become files, without running anything of the repository's."""
