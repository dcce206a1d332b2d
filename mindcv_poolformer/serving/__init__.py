"""A bundle as a service: a runtime for MLServer, and MLServer with limits at its edge."""
