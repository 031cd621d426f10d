"""`nuclr-train report`: one run as one HTML page with its figures inside, for the screen and for paper.

write.py joins the sections that run.py, embeddings.py, readouts.py and scores.py make from files that programs wrote.
What is not there is left out with the reason. page.py turns sections into HTML; figures of scores are those of
`offline_training.reporting.figures`.
"""

from offline_training.reporting.report.write import write_report

__all__ = ["write_report"]
