"""The live page: a web server of its own that is fed by the daemon over ZeroMQ, and the page that it serves."""
