"""What the trainers refuse before anything long starts."""
