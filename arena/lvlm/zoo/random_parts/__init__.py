"""What a random checkpoint of each family is made of: one module a family."""
