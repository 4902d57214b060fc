"""A policy's answer distribution against people's."""
