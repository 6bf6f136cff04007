"""Programs that speak OpenAI's protocol, as their users write them; only the address is ours."""
