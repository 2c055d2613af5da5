"""The prompt set `everyday`: harmless requests, and some that only sound harmful, in sixteen languages."""

LANGUAGES = ("en", "zh", "ko", "th", "bn", "sw", "it", "vi", "ar", "jv", "hi", "af", "ne", "es", "fr", "de")
