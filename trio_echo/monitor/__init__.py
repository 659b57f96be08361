"""One target watched for ever: when its split changes, and what becomes of open connections."""
