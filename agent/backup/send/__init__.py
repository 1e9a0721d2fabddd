"""What backups and restores ask of the controller, and how fast they may."""
