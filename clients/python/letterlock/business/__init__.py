"""What a business backend uses: sending and receiving for its number, and administration."""
