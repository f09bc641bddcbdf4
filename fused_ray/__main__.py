"""`python -m fused_ray` is the command line."""

from fused_ray.cli.app import main

if __name__ == "__main__":
    main()
