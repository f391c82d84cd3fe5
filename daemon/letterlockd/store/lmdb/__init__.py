"""The LMDB engine of the store port."""
