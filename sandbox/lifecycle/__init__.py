"""How long sandboxes live: expiry, pins, sleep, and the clean-up of what is due."""
