"""Trains the two networks behind the logo model on marks drawn into photos; see README.md here for the recipe.

Nothing here runs in a service: training needs torch, which no environment of the project has, and photos.
"""
