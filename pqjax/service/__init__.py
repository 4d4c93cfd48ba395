"""A server for many clients: several models, worker processes, and what is kept of clients."""
