"""The contract between training and daemon: manifest and verification."""
