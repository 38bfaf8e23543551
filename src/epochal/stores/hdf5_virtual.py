"""HDF5 virtual datasets: what they map, whether that may be read, and how."""
