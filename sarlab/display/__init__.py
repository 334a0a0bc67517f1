"""How numbers look: text, tokens, figures. No widgets, no model."""
