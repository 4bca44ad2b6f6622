"""Which of the changes between two states makes a test fail, found by trying combinations of them in sandboxes."""
