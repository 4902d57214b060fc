"""Distance of a policy's answer distribution from that of people. Needs no trainer."""
