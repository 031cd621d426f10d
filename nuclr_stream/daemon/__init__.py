"""The process: the loop that owns the sockets, the inference thread, queries, records, metrics."""
