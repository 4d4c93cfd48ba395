"""AES as a generator and as a hash, in bulk: keyed, pure, no wire in sight."""
