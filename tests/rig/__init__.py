"""The test rig: a real gateway, a mock upstream on loopback, and readers of their output. Holds no tests."""
