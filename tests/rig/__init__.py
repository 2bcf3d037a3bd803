"""The test rig: a real gateway, a cloud stand-in on loopback, and readers of what they say. Holds no tests."""
