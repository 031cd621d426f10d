"""What a rig imports: publish spikes, iterate predictions, ask for embeddings."""
