"""`nuclr-train reproduce`: a published experiment from its public archive, its table beside the published one.

allen.py, ibl.py, steinmetz.py and bugeon.py each know one archive: how it is laid out, which units and stretches count,
which task is asked. protocol.py evaluates as published, published.py holds the published figures, experiment.py runs.
"""
