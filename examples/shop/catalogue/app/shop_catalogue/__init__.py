"""The catalogue API: which products the shop sells, and for how much."""
