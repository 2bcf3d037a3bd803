"""The test rig: a real gateway, a mock upstream on loopback, and readers of what they say. Holds no tests."""
