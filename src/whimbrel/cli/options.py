"""Options that many commands share, so that one thing is said in one way everywhere.

A model is named with `--model NAME` (`-m`). Only the commands of `whimbrel model` name it as their argument, since it
is what they are about.
"""

from typing import Annotated

import typer

ModelName = Annotated[str, typer.Option("--model", "-m", help="The model's name.")]
OnlyModel = Annotated[str | None, typer.Option("--model", "-m", help="Only this model's.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask; scripts need it.")]
