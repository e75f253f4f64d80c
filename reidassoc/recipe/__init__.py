"""Recipes: every choice of a run, as text and as checked values."""

from reidassoc.recipe.load import load_recipe, parse_recipe, shipped_recipes
from reidassoc.recipe.model import Augmentation, Optimiser, Part, Recipe, Stage

__all__ = ["Augmentation", "Optimiser", "Part", "Recipe", "Stage", "load_recipe", "parse_recipe", "shipped_recipes"]
