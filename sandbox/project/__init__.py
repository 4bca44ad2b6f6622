"""Files that people write: sandbox.yaml, quota profiles, user settings; and what is found where there is none."""
