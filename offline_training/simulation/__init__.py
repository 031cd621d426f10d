"""Simulated animals: `animals` modulates the intensities of independent cells, fast; `network` couples cells, hard."""
