"""What each `avat3r` subcommand does, one file each; `cli.py` holds their arguments."""
