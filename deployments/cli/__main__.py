"""Makes `python -m deployments.cli` the same as `understudy`.

Does not know anything else.
"""

from deployments.cli import main

if __name__ == "__main__":
    main()
