"""The HTTP client of the OpenAI API: one event loop in a thread, shared connections."""
