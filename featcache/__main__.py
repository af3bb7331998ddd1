"""`python -m featcache`: the command `featcache`, also where the folder of scripts is not on the path."""

from pipelines.cli import main

if __name__ == "__main__":
    main()
