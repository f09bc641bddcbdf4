"""Parts for fused_ray from outside: one of every kind."""
