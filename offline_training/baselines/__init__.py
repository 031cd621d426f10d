"""Training-free features of single units and what their neighbours add: the floor that an encoder has to beat."""
