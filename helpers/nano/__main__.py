"""The process that trains a nano model: python -m helpers.nano FOLDER RECIPE, the recipe as JSON."""

import json
import sys
from pathlib import Path

from helpers.nano import maker
from helpers.nano.common import Recipe

recipe = Recipe(**json.loads(sys.argv[2]))
maker(recipe).make(Path(sys.argv[1]), recipe)
