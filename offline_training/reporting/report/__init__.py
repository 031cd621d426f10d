"""`nuclr-train report`: one run as one HTML page with its figures inside, for the screen and for paper.

write.py joins the sections that run.py, embeddings.py, scores.py and curves.py make from files that programs wrote.
What is not there is left out with the reason. page.py turns sections into HTML, style.py has what all figures share.
"""

from offline_training.reporting.report.write import write_report

__all__ = ["write_report"]
