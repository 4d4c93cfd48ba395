"""For browsers and programs of this machine: a page that shows an inference, and a sidecar over HTTP.

Both are the client's process. They listen on loopback alone, and know who asks (`guard`).
"""
