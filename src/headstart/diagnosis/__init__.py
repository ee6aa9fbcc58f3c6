"""Why transfer learning failed: look at what really arrives, prove what it costs, repair it."""
