"""Businesses, their numbers and the tokens that may act for them."""
