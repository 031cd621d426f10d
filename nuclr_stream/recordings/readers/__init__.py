"""Readers of recordings on disk: .npz, NWB, Kilosort/phy folders and torch_brain HDF5, recognised by their content.

`open_recordings` gives one Recording per hardware probe, whatever the file. Nothing is unpickled or executed.
"""

from nuclr_stream.recordings.readers.finding import AnyRecording, Source, find_sources, open_one, open_recordings
from nuclr_stream.recordings.readers.trains import UNKNOWN_SUBJECT

__all__ = ["UNKNOWN_SUBJECT", "AnyRecording", "Source", "find_sources", "open_one", "open_recordings"]
