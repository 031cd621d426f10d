"""Acquisition systems: what their messages mean, turned into the spikes, unit tables and watermarks of our protocol.

Every source runs in a process of its own (`nuclr-stream source`), so that a broken vendor stream cannot hurt the
daemon. `writer` is what all of them write with; each system has its own modules beside it.
"""
