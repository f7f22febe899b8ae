"""What the author of an op imports. Standard library only and good for Python 3.9: a bundle carries this package alone.

    from pathlib import Path
    from gyoza.op import op, output_dir, progress

    @op
    def shout(text: str, times: int = 1) -> dict:
        progress(50)
        return {"loud": text.upper() * times}

The signature is the schema: `input_specs` and `output_specs` of the definition are read from it. The function stays a
plain function: call it in a plain test. A worker runs it with `python -m gyoza.op module:function`.
"""

from gyoza.op.author import Failure, log, op, output_dir, progress, secret

__all__ = ["Failure", "log", "op", "output_dir", "progress", "secret"]
