"""Chat templates as package files; `onereason.data.chat.load_template` reads them."""
